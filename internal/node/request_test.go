package node_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Every reason to refuse a request, told before anything is looked up.
func TestRefusals(t *testing.T) {
	t.Attr("conformance", "12.6/arguments")
	t.Attr("conformance", "12.6/readonly")
	attribute := func(key, value string) func(*csi.NodePublishVolumeRequest) {
		return func(r *csi.NodePublishVolumeRequest) {
			if r.VolumeContext[key] = value; value == "" {
				delete(r.VolumeContext, key)
			}
		}
	}
	mountOf := func(r *csi.NodePublishVolumeRequest) *csi.VolumeCapability_MountVolume {
		return r.VolumeCapability.GetMount()
	}
	for _, tc := range []struct {
		name, row string
		change    func(*csi.NodePublishVolumeRequest)
		want      string
	}{
		{"capability", "driver 2.1", func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability = nil }, "Volume capability missing in request"},
		{"volume id", "driver 2.1", func(r *csi.NodePublishVolumeRequest) { r.VolumeId = "" }, "Volume ID missing in request"},
		{"target", "driver 2.1", func(r *csi.NodePublishVolumeRequest) { r.TargetPath = "" }, "Target path missing in request"},
		{"attributes", "driver 2.1", func(r *csi.NodePublishVolumeRequest) { r.VolumeContext = nil }, "Volume attributes missing in request"},
		{"read-only", "driver 2.1", func(r *csi.NodePublishVolumeRequest) { r.Readonly = false }, "Readonly is not true in request"},
		{"class", "driver 2.1", attribute("secretProviderClass", ""), "secretProviderClass is not set"},
		{"pod name", "", attribute("csi.storage.k8s.io/pod.name", ""), "podInfoOnMount"},
		{"pod namespace", "", attribute("csi.storage.k8s.io/pod.namespace", ""), "podInfoOnMount"},
		{"pod uid", "", attribute("csi.storage.k8s.io/pod.uid", ""), "podInfoOnMount"},
		{"block", "", func(r *csi.NodePublishVolumeRequest) {
			r.VolumeCapability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		}, "Block volumes"},
		{"group is no number", "", func(r *csi.NodePublishVolumeRequest) { mountOf(r).VolumeMountGroup = "staff" }, `"staff" is not a group id`},
		{"group is negative", "", func(r *csi.NodePublishVolumeRequest) { mountOf(r).VolumeMountGroup = "-1" }, "not a group id"},
		{"group is too large", "", func(r *csi.NodePublishVolumeRequest) { mountOf(r).VolumeMountGroup = "4294967295" }, "not a group id"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.lookup = errors.New("looked up")
			err := w.publish(tc.change)
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tc.want) || len(w.published) > 0 {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	w := newWorld(t)
	for want, req := range map[string]*csi.NodeUnpublishVolumeRequest{
		"Volume ID missing in request":   {TargetPath: "/t"},
		"Target path missing in request": {VolumeId: "v"},
	} {
		if _, err := w.NodeUnpublishVolume(t.Context(), req); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if len(w.removed) > 0 {
		t.Error("something was removed")
	}
}
