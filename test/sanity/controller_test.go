//go:build integration && linux

package sanity

import (
	"fmt"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// A volume is the inline volume of a pod that stands in the API server.
type volume struct {
	ID                                     string
	Namespace, Pod, PodUID, ServiceAccount string
}

// attributes are what kubelet tells a driver with podInfoOnMount about the volume, and what the pod's author wrote.
func (v volume) attributes(class string) map[string]string {
	return map[string]string{
		"csi.storage.k8s.io/pod.name":            v.Pod,
		"csi.storage.k8s.io/pod.namespace":       v.Namespace,
		"csi.storage.k8s.io/pod.uid":             v.PodUID,
		"csi.storage.k8s.io/serviceAccount.name": v.ServiceAccount,
		"csi.storage.k8s.io/ephemeral":           "true",
		"secretProviderClass":                    class,
	}
}

// A controller is the part of a CSI driver that inline volumes do not need and the suite does. To make a volume is to hand
// out that of the next pod.
type controller struct {
	mu      sync.Mutex
	volumes []volume        // not handed out yet
	inUse   map[string]bool // volume id -> not deleted
	made    int
	deleted int
}

func (c *controller) counts() (made, deleted int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made, c.deleted
}

// answer answers a call in the place of a server.
func (c *controller) answer(method string, req, reply any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r := req.(type) {
	case *csi.ControllerGetCapabilitiesRequest:
		return fill(reply, &csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{
				Type: csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
			}},
		}}})
	case *csi.CreateVolumeRequest:
		if len(c.volumes) == 0 {
			return status.Error(codes.ResourceExhausted, "the suite wants more volumes than there are pods")
		}
		v := c.volumes[0]
		c.volumes = c.volumes[1:]
		c.made++
		if c.inUse == nil {
			c.inUse = map[string]bool{}
		}
		c.inUse[v.ID] = true
		return fill(reply, &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: v.ID, CapacityBytes: r.GetCapacityRange().GetRequiredBytes()}})
	case *csi.DeleteVolumeRequest:
		if !c.inUse[r.GetVolumeId()] {
			return status.Error(codes.FailedPrecondition, fmt.Sprintf("volume %q is deleted and was not made", r.GetVolumeId()))
		}
		delete(c.inUse, r.GetVolumeId())
		c.deleted++
		return fill(reply, &csi.DeleteVolumeResponse{})
	case *csi.ValidateVolumeCapabilitiesRequest:
		return fill(reply, &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
			VolumeCapabilities: r.GetVolumeCapabilities(),
		}})
	}
	return status.Error(codes.Unimplemented, method+" has no stub")
}

// fill makes the message that the caller waits for.
func fill(reply any, answer proto.Message) error {
	proto.Merge(reply.(proto.Message), answer)
	return nil
}
