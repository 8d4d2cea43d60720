//go:build integration && linux

package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// config reaches the server as nobody.
func (s *Server) config() *rest.Config {
	return &rest.Config{
		Host:            "https://" + s.proxy.port.address(),
		TLSClientConfig: rest.TLSClientConfig{CAFile: s.pki.caCert},
		QPS:             -1, // no client throttles itself: a test counts what a program asks, not what it was let to ask
		// The server warns of old versions and of tokens in attributes, which tests use on purpose.
		WarningHandler: rest.NoWarnings{},
	}
}

// Admin returns a configuration that may do everything.
func (s *Server) Admin() *rest.Config { return rest.CopyConfig(s.admin) }

// Client returns a client that may do everything.
func (s *Server) Client() dynamic.Interface { return s.client }

// ConfigFor returns a configuration for whoever the token names, with exactly the rights that RBAC gives.
func (s *Server) ConfigFor(token string) *rest.Config {
	config := s.config()
	config.BearerToken = token
	return config
}

// User returns the name by which the API server knows a service account.
func User(namespace, serviceAccount string) string {
	return "system:serviceaccount:" + namespace + ":" + serviceAccount
}

// A TokenOption changes what a token is asked for.
type TokenOption func(*authenticationv1.TokenRequestSpec)

// ForAudiences asks for a token for others than the API server.
func ForAudiences(audiences ...string) TokenOption {
	return func(spec *authenticationv1.TokenRequestSpec) { spec.Audiences = audiences }
}

// BoundTo asks for a token that is good as long as the pod is there, as kubelet asks for.
func BoundTo(pod *corev1.Pod) TokenOption {
	return func(spec *authenticationv1.TokenRequestSpec) {
		spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	}
}

// ForSeconds asks for a life of the token; the API server grants none below 600.
func ForSeconds(seconds int64) TokenOption {
	return func(spec *authenticationv1.TokenRequestSpec) { spec.ExpirationSeconds = &seconds }
}

// Token asks the API server for a token of the service account: by default for the API server itself, for an hour.
func (s *Server) Token(t testing.TB, namespace, serviceAccount string, options ...TokenOption) authenticationv1.TokenRequestStatus {
	t.Helper()
	request := &authenticationv1.TokenRequest{}
	for _, option := range options {
		option(&request.Spec)
	}
	answer, err := RequestToken(t.Context(), s.client, namespace, serviceAccount, request)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status
}

// RequestToken is the TokenRequest API, for a client without types.
func RequestToken(ctx context.Context, client dynamic.Interface, namespace, serviceAccount string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	request = request.DeepCopy()
	request.TypeMeta = metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenRequest"}
	request.Name = serviceAccount
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(request)
	if err != nil {
		return nil, err
	}
	answer, err := client.Resource(corev1.SchemeGroupVersion.WithResource("serviceaccounts")).Namespace(namespace).
		Create(ctx, &unstructured.Unstructured{Object: content}, metav1.CreateOptions{}, "token")
	if err != nil {
		return nil, fmt.Errorf("requesting a token for service account %s/%s: %w", namespace, serviceAccount, err)
	}
	granted := &authenticationv1.TokenRequest{}
	return granted, runtime.DefaultUnstructuredConverter.FromUnstructured(answer.Object, granted)
}

// Kubeconfig writes a kubeconfig file for the service account and returns its path. A process that is given it acts with
// exactly that account's rights.
func (s *Server) Kubeconfig(t testing.TB, namespace, serviceAccount string) string {
	t.Helper()
	config := s.ConfigFor(s.Token(t, namespace, serviceAccount).Token)
	type named map[string]any
	text, err := json.Marshal(named{ // JSON is YAML
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []named{{"name": "test", "cluster": named{"server": config.Host, "certificate-authority": config.CAFile}}},
		"users":    []named{{"name": serviceAccount, "user": named{"token": config.BearerToken}}},
		"contexts": []named{{"name": "test", "context": named{"cluster": "test", "user": serviceAccount, "namespace": namespace}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
