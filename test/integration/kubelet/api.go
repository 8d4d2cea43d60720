//go:build integration && linux

package kubelet

import (
	"context"
	"fmt"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"

	"keymount/test/integration/apiserver"
)

// FromConfig is the API of a real API server.
func FromConfig(client dynamic.Interface) API { return realAPI{client} }

type realAPI struct{ client dynamic.Interface }

func (a realAPI) CSIDriver(ctx context.Context, name string) (*storagev1.CSIDriver, error) {
	object, err := a.client.Resource(storagev1.SchemeGroupVersion.WithResource("csidrivers")).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	found := &storagev1.CSIDriver{}
	return found, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, found)
}

func (a realAPI) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	object, err := a.client.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	found := &corev1.Secret{}
	return found, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, found)
}

func (a realAPI) Token(ctx context.Context, namespace, serviceAccount string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	return apiserver.RequestToken(ctx, a.client, namespace, serviceAccount, request)
}

// cachedAPI is what kubelet keeps of the API server's answers, so that an outage shows where it would on a node.
type cachedAPI struct {
	API
	now func() time.Time

	mu      sync.Mutex
	drivers map[string]*storagev1.CSIDriver           // as last seen
	tokens  map[string]*authenticationv1.TokenRequest // by what was asked
}

func newCachedAPI(api API, now func() time.Time) *cachedAPI {
	return &cachedAPI{
		API: api, now: now,
		drivers: map[string]*storagev1.CSIDriver{}, tokens: map[string]*authenticationv1.TokenRequest{},
	}
}

// CSIDriver answers from an informer in kubelet (csi_plugin.go Init): what was seen last holds while the API server is away.
// Unlike an informer it is never behind.
func (c *cachedAPI) CSIDriver(ctx context.Context, name string) (*storagev1.CSIDriver, error) {
	found, err := c.API.CSIDriver(ctx, name)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.drivers[name] = found
	case apierrors.IsNotFound(err):
		delete(c.drivers, name)
	case c.drivers[name] != nil:
		return c.drivers[name], nil
	}
	return found, err
}

// Token gives the token of the last request again until four fifths of its life, or 24 hours, have passed, and longer while
// no other is to be had (token_manager.go GetServiceAccountToken, requiresRefresh; without its jitter of some seconds). So
// a republish mostly brings the token that the driver knows.
func (c *cachedAPI) Token(ctx context.Context, namespace, serviceAccount string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := fmt.Sprintf("%q %q %q %v %v", serviceAccount, namespace, request.Spec.Audiences, seconds(request), *request.Spec.BoundObjectRef)
	known := c.tokens[key]
	if known != nil && !c.stale(known) {
		return known, nil
	}
	granted, err := c.API.Token(ctx, namespace, serviceAccount, request)
	if err != nil {
		if known != nil && !c.now().After(known.Status.ExpirationTimestamp.Time) {
			return known, nil
		}
		return nil, err
	}
	c.tokens[key] = granted
	return granted, nil
}

func (c *cachedAPI) stale(t *authenticationv1.TokenRequest) bool {
	if t.Spec.ExpirationSeconds == nil {
		return false
	}
	life := time.Duration(*t.Spec.ExpirationSeconds) * time.Second
	issued := t.Status.ExpirationTimestamp.Add(-life)
	age := c.now().Sub(issued)
	return age > 24*time.Hour || age > life*4/5
}

func seconds(r *authenticationv1.TokenRequest) int64 {
	if r.Spec.ExpirationSeconds == nil {
		return 0
	}
	return *r.Spec.ExpirationSeconds
}
