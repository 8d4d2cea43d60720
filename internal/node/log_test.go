package node_test

import (
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The author of a pod decides how long attributes and their names are, and kubelet repeats a call that fails for as long as
// the pod is there.
func TestLogsAreBounded(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("x", 100<<10)
	w.last(func(r *csi.NodePublishVolumeRequest) {
		r.VolumeContext["secretProviderClass"] = long
		r.VolumeContext[long] = "value"
		for _, c := range "abcdef" {
			r.VolumeContext[string(c)+long] = "value"
		}
	})
	if log := w.log.String(); len(log) > 8<<10 || !strings.Contains(log, "xxx...") {
		t.Errorf("%d bytes were logged: %.500s", len(log), log)
	}
}

// Lines of the driver name a class by its namespace and name, so that one search finds them all.
func TestFailedCallNamesItsClass(t *testing.T) {
	w := newWorld(t)
	if err := w.publish(func(r *csi.NodePublishVolumeRequest) { r.Readonly = false }); err == nil {
		t.Fatal("no error")
	}
	if log := w.log.String(); !strings.Contains(log, `msg="call failed" volume=csi-1 pod=shop/web-1 class=shop/db `) {
		t.Errorf("%s", log)
	}
}

// A message that names them must have room for what to do about it.
func TestLockedParametersAreNamedUpToABound(t *testing.T) {
	w := newWorld(t)
	w.class.LockParameters = true
	err := w.publish(func(r *csi.NodePublishVolumeRequest) { r.VolumeContext[strings.Repeat("x", 100<<10)] = "value" })
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "remove them from csi.volumeAttributes") {
		t.Errorf("%.300v", err)
	}
}
