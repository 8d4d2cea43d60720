//go:build integration && linux

// Package kubelet is a stand-in for kubelet 1.37 as far as a CSI driver of inline volumes can tell: it registers the driver
// from its socket, publishes, republishes and unpublishes the volumes of pods over the driver's own socket, makes and
// removes the folders around them, and judges the driver's answers. What it does, and leaves undone, follows kubelet's
// source of v1.37.2; each rule names the function there that it comes from. It does nothing by itself: a test takes every
// step, and retries are a policy that a test can ask for its waits.
//
// Left out, because a driver of inline volumes cannot tell or the test machine has none of it: SELinux labels, the CSINode
// object and the node's annotation, persistent volumes, volume statistics and health, subPath mounts.
//
// It must not import Keymount's own packages, nor mount anything. One Kubelet may be used concurrently for different
// volumes; the calls for one volume come one after the other, as kubelet's nestedpendingoperations sees to.
package kubelet

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/version"
)

// PublishTimeout is how long kubelet lets the driver work on one call (csi_plugin.go csiTimeout).
const PublishTimeout = 2 * time.Minute

// API is what kubelet asks the API server for on behalf of a CSI volume. FromConfig asks a real one.
type API interface {
	// CSIDriver returns an error that satisfies apierrors.IsNotFound if there is none.
	CSIDriver(ctx context.Context, name string) (*storagev1.CSIDriver, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	Token(ctx context.Context, namespace, serviceAccount string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
}

// Kubelet is the kubelet of one node.
type Kubelet struct {
	root string
	node string
	api  *cachedAPI

	mu      sync.Mutex
	drivers map[string]driver // by name: those registered now
	sockets map[string]plugin // by path: the registration sockets that brought them
}

// driver is what kubelet keeps of a registered driver (csi_drivers_store.go Driver).
type driver struct {
	endpoint string
	version  *version.Version // the highest that both sides speak
}

// New returns a kubelet that has just been started on the node, with its folder at root (/var/lib/kubelet on a real node).
func New(root, node string, api API) *Kubelet {
	return &Kubelet{root: root, node: node, api: newCachedAPI(api, time.Now), drivers: map[string]driver{}, sockets: map[string]plugin{}}
}

// Drivers returns the names of the registered drivers and the socket of each.
func (k *Kubelet) Drivers() map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	endpoints := map[string]string{}
	for name, d := range k.drivers {
		endpoints[name] = d.endpoint
	}
	return endpoints
}

func (k *Kubelet) driver(name string) (driver, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d, ok := k.drivers[name]
	return d, ok
}

// PodDir is the pod's folder (kubelet_getters.go getPodDir).
func (k *Kubelet) PodDir(pod *corev1.Pod) string {
	return filepath.Join(k.root, "pods", string(pod.UID))
}

// targetDir is where the driver mounts a volume (csi_mounter.go getTargetPath, csi_util.go GetCSIMounterPath). Slashes of a
// name become tildes (k8s.io/utils/strings EscapeQualifiedName).
func (k *Kubelet) targetDir(pod *corev1.Pod, volume string) string {
	return filepath.Join(k.PodDir(pod), "volumes", "kubernetes.io~csi", strings.ReplaceAll(volume, "/", "~"), "mount")
}
