//go:build integration && linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const driverName = "secrets.example.com"

// small is a small CSI driver. It cannot mount, since tests need no root: a folder stands for the mount.
type small struct {
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer

	mu        sync.Mutex
	abilities []csi.NodeServiceCapability_RPC_Type
	answer    error // of publish and unpublish
	leave     bool  // a file in the target when publish fails; the target when unpublish succeeds
	nodeID    string
	info      *registration.PluginInfo
	published []*csi.NodePublishVolumeRequest
	deadline  time.Duration // of the last publish
	removed   []*csi.NodeUnpublishVolumeRequest
	statuses  []*registration.RegistrationStatus
}

func (s *small) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &csi.NodeGetInfoResponse{NodeId: s.nodeID}, nil
}

func (s *small) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &csi.NodeGetCapabilitiesResponse{}
	for _, a := range s.abilities {
		answer.Capabilities = append(answer.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: a}},
		})
	}
	return answer, nil
}

func (s *small) NodePublishVolume(ctx context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.published = append(s.published, r)
	if deadline, ok := ctx.Deadline(); ok {
		s.deadline = time.Until(deadline)
	}
	if err := os.MkdirAll(r.TargetPath, 0o750); err != nil {
		return nil, err
	}
	if s.answer != nil && s.leave {
		return nil, errors.Join(s.answer, os.WriteFile(filepath.Join(r.TargetPath, "left"), nil, 0o600))
	}
	return &csi.NodePublishVolumeResponse{}, s.answer
}

func (s *small) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = append(s.removed, r)
	if s.answer == nil && !s.leave {
		return &csi.NodeUnpublishVolumeResponse{}, os.RemoveAll(r.TargetPath)
	}
	return &csi.NodeUnpublishVolumeResponse{}, s.answer
}

func (s *small) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info, nil
}

func (s *small) NotifyRegistrationStatus(_ context.Context, r *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.statuses = append(s.statuses, r)
	return &registration.RegistrationStatusResponse{}, nil
}

func (s *small) last() *csi.NodePublishVolumeRequest { return s.published[len(s.published)-1] }

// serve serves the driver, or its registration, on a socket until the returned function is called.
func serve(t *testing.T, socket string, register func(*grpc.Server)) (stop func()) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	register(server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // ends with Stop
	}()
	stop = sync.OnceFunc(func() { server.Stop(); <-done })
	t.Cleanup(stop)
	return stop
}

// memory is an API server's memory, as far as kubelet asks for it.
type memory struct {
	drivers map[string]*storagev1.CSIDriver
	secrets map[string]*corev1.Secret
	away    error // what every question is answered with, if set
	now     func() time.Time
	granted []*authenticationv1.TokenRequest
}

func (m *memory) CSIDriver(_ context.Context, name string) (*storagev1.CSIDriver, error) {
	if d := m.drivers[name]; d != nil || m.away != nil {
		return d, m.away
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "csidrivers"}, name)
}

func (m *memory) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	if s := m.secrets[namespace+"/"+name]; s != nil || m.away != nil {
		return s, m.away
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}

func (m *memory) Token(_ context.Context, namespace, serviceAccount string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	if m.away != nil {
		return nil, m.away
	}
	r = r.DeepCopy()
	if r.Spec.ExpirationSeconds == nil {
		r.Spec.ExpirationSeconds = new(int64(3600))
	}
	m.granted = append(m.granted, r)
	r.Status.Token = fmt.Sprintf("%s/%s for %q, number %d", namespace, serviceAccount, r.Spec.Audiences, len(m.granted))
	r.Status.ExpirationTimestamp = metav1.NewTime(m.now().Add(time.Duration(*r.Spec.ExpirationSeconds) * time.Second).UTC())
	return r, nil
}

// A rig is a kubelet with a driver registered, and a pod with one volume.
type rig struct {
	kubelet *Kubelet
	driver  *small
	api     *memory
	object  *storagev1.CSIDriver
	pod     *corev1.Pod
	clock   time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{
		driver: &small{nodeID: "node"},
		clock:  time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		object: &storagev1.CSIDriver{
			ObjectMeta: metav1.ObjectMeta{Name: driverName},
			Spec: storagev1.CSIDriverSpec{
				PodInfoOnMount:       new(true),
				RequiresRepublish:    new(true),
				FSGroupPolicy:        new(storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy),
				VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral},
			},
		},
		pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "pod-uid"},
			Spec: corev1.PodSpec{
				ServiceAccountName: "sa",
				Volumes:            []corev1.Volume{Inline("vol", driverName, map[string]string{"secretProviderClass": "class"})},
			},
		},
	}
	now := func() time.Time { return r.clock }
	r.api = &memory{
		drivers: map[string]*storagev1.CSIDriver{driverName: r.object},
		secrets: map[string]*corev1.Secret{"ns/creds": {Data: map[string][]byte{"id": []byte("me")}}},
		now:     now,
	}
	r.kubelet = New(t.TempDir(), "node", r.api)
	r.kubelet.api.now = now
	socket := filepath.Join(t.TempDir(), "csi.sock")
	serve(t, socket, func(s *grpc.Server) { csi.RegisterNodeServer(s, r.driver) })
	r.kubelet.drivers[driverName] = driver{endpoint: socket}
	return r
}

func (r *rig) volume(t *testing.T) *Volume {
	t.Helper()
	v, err := r.kubelet.Volume(r.pod, "vol")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (r *rig) mounted(t *testing.T) *Volume {
	t.Helper()
	v := r.volume(t)
	if err := v.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	return v
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
