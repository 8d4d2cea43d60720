//go:build integration && linux

package integration

import (
	"strings"
	"testing"
	"time"

	"keymount/internal/emulator"
)

// The life of a volume of the built-in Azure provider, from a pod's first mount to its end.
func TestRootLifeOfAVolume(t *testing.T) {
	r := newRig(t, append(withAzure("--share-reads-for=0s"), rotation("1s")...)...)
	r.emu.PutSecret(vault, "db", "one")
	r.emu.PutSecret(vault, "web", "two")
	r.azureClass("app", nil, "db", "web")
	r.principal("sp")
	v := r.volume("app", withSecret("sp"))
	r.mustPublish(v)
	r.wantFiles(v, map[string]string{"db": "one", "web": "two"})
	status := r.statuses()
	if len(status) != 1 || !strings.HasSuffix(status[0].GetName(), "-"+r.ns+"-app") {
		t.Errorf("status objects: %v", status)
	}

	r.emu.PutSecret(vault, "db", "three")
	elapse(t, time.Second)
	r.mustRepublish(v)
	r.wantFiles(v, map[string]string{"db": "three", "web": "two"})
	r.awaitEvent("Normal MountRotationComplete")

	reads := r.emu.Requests()[emulator.KindSecretGet]
	r.emu.SetFault(emulator.Fault{Do: emulator.ActStatus, Status: 403, Kind: emulator.KindSecretGet})
	elapse(t, time.Second)
	r.mustRepublish(v) // a FailedMount on a pod that runs helps nobody
	r.wantFiles(v, map[string]string{"db": "three", "web": "two"})
	r.awaitEvent("Warning MountRotationFailed")
	if r.emu.Requests()[emulator.KindSecretGet] == reads {
		t.Error("nothing was asked")
	}
	r.mustUnpublish(v)
}
