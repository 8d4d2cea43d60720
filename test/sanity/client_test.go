//go:build integration && linux

package sanity

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A client stands between the suite and the driver. It adds to requests what kubelet adds for an inline volume, answers for
// the controller that there is not, and looks at the node after each call that should have changed it, or should not have.
type client struct {
	task       task
	controller *controller

	mu       sync.Mutex
	checks   checks
	failures []string
	volumes  map[string]string // target -> what wholeVolume said of it, as long as it is published
}

// checks counts what was looked at.
type checks struct {
	Published        int // a tmpfs at the target, and ..data resolves
	Unpublished      int // nothing left
	Refused          int // publishing was refused, and nothing is there
	UnpublishRefused int // unpublishing was refused, and nothing is there
	Volumes          int // made by the controller
	VolumesDeleted   int
}

func newClient(t task) *client {
	return &client{task: t, controller: &controller{volumes: t.Volumes[1:]}, volumes: map[string]string{}}
}

// result returns what was looked at, and what was found wrong.
func (c *client) result() (checks, []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checks.Volumes, c.checks.VolumesDeleted = c.controller.counts()
	return c.checks, c.failures
}

// intercept is a grpc.UnaryClientInterceptor.
func (c *client) intercept(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if strings.HasPrefix(method, "/csi.v1.Controller/") {
		return c.controller.answer(method, req, reply)
	}
	switch r := req.(type) {
	case *csi.NodePublishVolumeRequest:
		return c.published(r, invoke(ctx, method, c.complete(r), reply, conn, opts...))
	case *csi.NodeUnpublishVolumeRequest:
		return c.unpublished(r, invoke(ctx, method, req, reply, conn, opts...))
	}
	err := invoke(ctx, method, req, reply, conn, opts...)
	if r, ok := reply.(*csi.GetPluginCapabilitiesResponse); ok && err == nil {
		return c.addController(r)
	}
	return err
}

// addController says that there is a controller, which the product must not say.
func (c *client) addController(r *csi.GetPluginCapabilitiesResponse) error {
	if len(r.GetCapabilities()) > 0 {
		return c.wrong(fmt.Errorf("the driver says that it has %v", r.GetCapabilities()))
	}
	r.Capabilities = []*csi.PluginCapability{{Type: &csi.PluginCapability_Service_{
		Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE},
	}}}
	return nil
}

// complete returns the request as kubelet would send it (kubernetes, pkg/volume/csi/csi_mounter.go SetUpAt). The specs that
// leave out a volume id, a target or a capability leave out more than that; here exactly the first of them is missing, so
// that the driver has nothing else to refuse.
func (c *client) complete(r *csi.NodePublishVolumeRequest) *csi.NodePublishVolumeRequest {
	sent := &csi.NodePublishVolumeRequest{
		VolumeId: r.GetVolumeId(), TargetPath: r.GetTargetPath(), Secrets: r.GetSecrets(),
		StagingTargetPath: r.GetStagingTargetPath(), PublishContext: r.GetPublishContext(),
		Readonly:      true,
		VolumeContext: c.volume(r.GetVolumeId()).attributes(c.task.Class),
	}
	if sent.VolumeId == "" {
		sent.TargetPath = filepath.Join(c.task.Folder, "target")
	}
	if r.GetVolumeCapability() != nil || r.GetVolumeId() == "" || r.GetTargetPath() == "" {
		sent.VolumeCapability = &csi.VolumeCapability{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		}
	}
	return sent
}

// volume returns the volume of that id, and one that the controller never hands out for an id that the suite made up.
func (c *client) volume(id string) volume {
	for _, v := range c.task.Volumes {
		if v.ID == id {
			return v
		}
	}
	return c.task.Volumes[0]
}

// published looks at the node after the driver's answer to a publish, and returns the answer if it is true.
func (c *client) published(r *csi.NodePublishVolumeRequest, answer error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	target := r.GetTargetPath()
	if answer != nil {
		c.checks.Refused++
		return c.leftNothing("a publish that was refused", target, answer)
	}
	c.checks.Published++
	found, err := wholeVolume(target, c.task.Files)
	if before, again := c.volumes[target]; err == nil && again && found != before {
		err = fmt.Errorf("%s has taken the place of %s", found, before) // nothing has changed at the source
	}
	c.volumes[target] = found
	if err != nil {
		return c.wrongLocked(fmt.Errorf("after a publish of %s: %w", r.GetVolumeId(), err))
	}
	return nil
}

// unpublished is published for an unpublish.
func (c *client) unpublished(r *csi.NodeUnpublishVolumeRequest, answer error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer != nil {
		c.checks.UnpublishRefused++
		return c.leftNothing("an unpublish that was refused", r.GetTargetPath(), answer)
	}
	c.checks.Unpublished++
	delete(c.volumes, r.GetTargetPath())
	return c.leftNothing("an unpublish", r.GetTargetPath(), nil)
}

// leftNothing returns the driver's answer if the node has nothing of a volume. No call of the suite is refused while a
// volume is published.
func (c *client) leftNothing(after, target string, answer error) error {
	folder := c.task.Folder
	if target != "" {
		folder = filepath.Dir(target)
	}
	if err := nothing(c.task.Root, folder); err != nil {
		return c.wrongLocked(fmt.Errorf("after %s: %w", after, err))
	}
	return answer
}

func (c *client) wrong(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wrongLocked(err)
}

// wrongLocked keeps what was found, and makes the spec fail: no spec wants this code.
func (c *client) wrongLocked(err error) error {
	c.failures = append(c.failures, err.Error())
	return status.Error(codes.DataLoss, err.Error())
}
