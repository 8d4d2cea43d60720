package node_test

import (
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Nothing that a request brings in confidence is logged, at whatever level.
func TestLogsHoldNoSecret(t *testing.T) {
	w := newWorld(t)
	w.last(func(r *csi.NodePublishVolumeRequest) {
		r.Secrets = map[string]string{"clientsecret": "hunter2", "csi.storage.k8s.io/serviceAccount.tokens": "hunter2"}
		r.VolumeContext["csi.storage.k8s.io/serviceAccount.tokens"] = "hunter2"
		r.VolumeContext["password"] = "hunter2"
	})
	if log := w.log.String(); strings.Contains(log, "hunter2") || !strings.Contains(log, "call done") || !strings.Contains(log, "password") {
		t.Errorf("logged: %s", log)
	}
}

func TestIdentityAndCapabilities(t *testing.T) {
	t.Attr("conformance", "12.2/csidriver-name")
	t.Attr("conformance", "12.8/fsgroup")
	t.Attr("conformance", "12.8/no-staging")
	w := newWorld(t)
	info, err := w.GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{})
	if err != nil || info.Name != "secrets-store.csi.k8s.io" || info.VendorVersion != "v1" {
		t.Errorf("%v, %v", info, err)
	}
	caps, err := w.GetPluginCapabilities(t.Context(), &csi.GetPluginCapabilitiesRequest{})
	if err != nil || len(caps.Capabilities) != 0 {
		t.Errorf("%v, %v", caps, err)
	}
	if _, err := w.Probe(t.Context(), &csi.ProbeRequest{}); err != nil {
		t.Error(err)
	}
	self, err := w.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || self.NodeId != "node-1" || self.AccessibleTopology != nil || self.MaxVolumesPerNode != 0 {
		t.Errorf("%v, %v", self, err)
	}
	has, err := w.NodeGetCapabilities(t.Context(), &csi.NodeGetCapabilitiesRequest{})
	if err != nil || len(has.Capabilities) != 1 || has.Capabilities[0].GetRpc().GetType() != csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP {
		t.Errorf("%v, %v", has, err)
	}
	for name, call := range map[string]func() error{
		"expand": func() error { _, err := w.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{}); return err },
		"stats": func() error {
			_, err := w.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{})
			return err
		},
	} {
		if status.Code(call()) != codes.Unimplemented {
			t.Errorf("%s: %v", name, call())
		}
	}
}
