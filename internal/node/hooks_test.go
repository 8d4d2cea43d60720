package node_test

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// Upstream's driver mounts an empty volume for a pod that names the provider mock_provider, and unmounts nothing at
// /tmp/csi/mount, for its own tests. Here these are names like any other.
func TestNoTestHooks(t *testing.T) {
	t.Attr("conformance", "10.3/no-test-hooks")
	w := newWorld(t)
	v := w.last(func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["providerName"] = "mock_provider" })
	if v.Provider != "azure" {
		t.Errorf("a pod chose the provider %q", v.Provider)
	}
	w.class.Provider = "mock_provider"
	if v = w.last(nil); v.Provider != "mock_provider" {
		t.Errorf("the Publisher is to look for %q", v.Provider)
	}
	for _, target := range []string{"/tmp/csi/mount", "/TMP/csi/mount"} {
		if _, err := w.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: target, TargetPath: target}); err != nil {
			t.Fatal(err)
		}
		if w.removed[target] != target {
			t.Errorf("%s was not removed", target)
		}
	}
}
