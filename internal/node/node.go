// Package node is the CSI Identity and Node service: it checks what kubelet asks, translates it into the terms of
// internal/publish, and translates the outcome back. It decides nothing about volumes.
//
// It owns the meaning of the request's fields (volume attributes, secrets, mount group), the texts of refusals, which are
// upstream's where it has one, and the gRPC codes: a final one exactly if nothing is left behind, because kubelet removes
// the target's folder then. It must not name a provider, touch files, or talk to the API server itself. The service may be
// called from any number of goroutines.
package node

import (
	"context"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"keymount/internal/classes"
	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/token"
)

// A Publisher makes and removes volumes.
type Publisher interface {
	Publish(ctx context.Context, v publish.Volume) (publish.Result, error)
	Unpublish(ctx context.Context, id, target string) error
}

// Classes knows the classes of the cluster, and watches those in use.
type Classes interface {
	Get(ctx context.Context, namespace, name string) (*classes.Class, error)
	Use(volumeID, namespace, name string)
	Release(volumeID string)
}

// Tokens finds out how far a pod's tokens may be believed.
type Tokens interface {
	Prove(ctx context.Context, pod provider.Pod, text string, from token.Origin) (map[string]provider.Token, error)
}

// Accounts reads annotations of service accounts.
type Accounts interface {
	Annotations(ctx context.Context, namespace, name string, keys []string) (map[string]string, error)
}

// Config is what a Server works with. All but the last group is required.
type Config struct {
	DriverName string
	Version    string
	NodeID     string

	Publisher Publisher
	Classes   Classes
	Tokens    Tokens

	// Rotation says how often volumes are refreshed; the zero value switches rotation off.
	Rotation Rotation
	// Accounts and AccountAnnotations hand these annotations of the pod's service account to the provider; none if empty.
	Accounts           Accounts
	AccountAnnotations []string
}

// Rotation is how often volumes are refreshed.
type Rotation struct {
	// Interval is the time between two refreshes of a volume whose class does not say otherwise; 0 means no rotation, also
	// for classes that ask for it.
	Interval time.Duration
	// MinInterval is the shortest interval that a class may ask for.
	MinInterval time.Duration
}

// A Server is the Identity and the Node service.
type Server struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	cfg Config
}

// New returns a Server.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// GetPluginInfo names the driver and its version.
func (s *Server) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: s.cfg.DriverName, VendorVersion: s.cfg.Version}, nil
}

// GetPluginCapabilities says that there are none: volumes are inline, so there is no controller.
func (s *Server) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

// Probe answers as long as the process serves: what it is for is to restart one that does not.
func (s *Server) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

// NodeGetInfo names the node. Volumes have no topology, and there may be any number.
func (s *Server) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: s.cfg.NodeID}, nil
}

// NodeGetCapabilities asks kubelet for the pod's fsGroup. Nothing is staged: kubelet does not stage inline volumes.
func (s *Server) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{{
		Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{
			Type: csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP,
		}},
	}}}, nil
}

// NodePublishVolume sees to it that the pod has its files. Kubelet calls it again and again for a running pod.
func (s *Server) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	m, err := parse(req)
	if err != nil {
		return nil, err
	}
	_, err = s.cfg.Publisher.Publish(ctx, s.volume(m))
	if code := codeOf(err); code != nil {
		return nil, code
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

// NodeUnpublishVolume removes the volume, however often it is asked to.
func (s *Server) NodeUnpublishVolume(ctx context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, invalid("Volume ID missing in request")
	case req.GetTargetPath() == "":
		return nil, invalid("Target path missing in request")
	}
	if err := codeOf(s.cfg.Publisher.Unpublish(ctx, req.GetVolumeId(), req.GetTargetPath())); err != nil {
		return nil, err
	}
	s.cfg.Classes.Release(req.GetVolumeId())
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
