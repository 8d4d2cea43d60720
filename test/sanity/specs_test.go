//go:build integration && linux

package sanity

import (
	"maps"
	"slices"
)

// specsThatRun are the specs of csi-test that run and pass. Another set or another number fails the test: whoever raises
// the version of csi-test reads what is new.
var specsThatRun = []string{
	/*  1 */ "Identity Service GetPluginCapabilities should return appropriate capabilities",
	/*  2 */ "Identity Service Probe should return appropriate information",
	/*  3 */ "Identity Service GetPluginInfo should return appropriate information",
	/*  4 */ "Node Service NodeGetCapabilities should return appropriate capabilities",
	/*  5 */ "Node Service NodeGetInfo should return appropriate values",
	/*  6 */ "Node Service NodePublishVolume should fail when no volume id is provided",
	/*  7 */ "Node Service NodePublishVolume should fail when no target path is provided",
	/*  8 */ "Node Service NodePublishVolume should fail when no volume capability is provided",
	/*  9 */ "Node Service NodeUnpublishVolume should fail when no volume id is provided",
	/* 10 */ "Node Service NodeUnpublishVolume should fail when no target path is provided",
	/* 11 */ "Node Service NodeUnpublishVolume should remove target path",
	/* 12 */ "Node Service should work",
	/* 13 */ "Node Service should be idempotent",
}

// skippedBecause are the specs of the Node Service that csi-test skips, by the reason that it gives: each is for an ability
// that the driver does not claim, since kubelet asks nothing of the kind about an inline volume of secrets.
var skippedBecause = map[string][]string{
	"Service does not have single node multi writer capability": {
		"NodePublishVolume with single node multi writer capability should fail when volume with single node single writer access mode is already mounted at a different target path",
	},
	"NodeStageVolume not supported": {
		"NodeStageVolume should fail when no volume id is provided",
		"NodeStageVolume should fail when no staging target path is provided",
		"NodeStageVolume should fail when no volume capability is provided",
	},
	"NodeUnstageVolume not supported": {
		"NodeUnstageVolume should fail when no volume id is provided",
		"NodeUnstageVolume should fail when no staging target path is provided",
	},
	"NodeGetVolume not supported": {
		"NodeGetVolumeStats should fail when no volume id is provided",
		"NodeGetVolumeStats should fail when no volume path is provided",
		"NodeGetVolumeStats should fail when volume is not found",
		"NodeGetVolumeStats should fail when volume does not exist on the specified path",
	},
	"NodeExpandVolume not supported": {
		"NodeExpandVolume should fail when no volume id is provided",
		"NodeExpandVolume should fail when no volume path is provided",
		"NodeExpandVolume should fail when volume is not found",
		"NodeExpandVolume should work if node-expand is called after node-publish",
	},
	"NodeGetVolumeHealth not supported": {
		"NodeGetVolumeHealth should fail when no volume id is provided",
		"NodeGetVolumeHealth should return health for a valid volume",
	},
	"NodeGetStorageHealth not supported": {
		"NodeGetStorageHealth should return appropriate response",
	},
}

func specsSkipped() []string {
	var all []string
	for _, why := range slices.Sorted(maps.Keys(skippedBecause)) {
		for _, name := range skippedBecause[why] {
			all = append(all, "Node Service "+name+": "+why)
		}
	}
	return all
}

// servicesLeftOut are the services of csi-test that are no node's.
var servicesLeftOut = []string{
	"Controller Service [Controller Server]",
	"ControllerGetVolumeHealth [Controller Server]",
	"ControllerListVolumeHealth [Controller Server]",
	"CreateSnapshot [Controller Server]",
	"DeleteSnapshot [Controller Server]",
	"ExpandVolume [Controller Server]",
	"GetSnapshot [Controller Server]",
	"GroupController Service [GroupController Server]",
	"GroupController Service [GroupController VolumeGroupSnapshots]",
	"ListSnapshots [Controller Server]",
	"ModifyVolume [Controller Server]",
}
