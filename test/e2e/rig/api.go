//go:build integration && linux

package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// fieldManager is who the suite is to server-side apply.
const fieldManager = "keymount-e2e"

// An api is the administrator's access to the cluster.
type api struct {
	kubeconfig string
	base       string
	http       *http.Client
	client     dynamic.Interface
	mapper     *restmapper.DeferredDiscoveryRESTMapper
}

func newAPI(ctx context.Context, kubeconfig string) (*api, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	config.QPS = -1 // the suite is no load that the server has to be protected from
	a := &api{kubeconfig: kubeconfig, base: config.Host}
	if a.http, err = rest.HTTPClientFor(config); err != nil {
		return nil, err
	}
	if a.client, err = dynamic.NewForConfig(config); err != nil {
		return nil, err
	}
	found, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	a.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found))
	_, err = a.raw(ctx, "/readyz")
	return a, err
}

// maxAnswer bounds an answer that is read whole.
const maxAnswer = 16 << 20

// raw reads a path of the API server whole.
func (a *api) raw(ctx context.Context, path string) ([]byte, error) {
	body, err := a.stream(ctx, path)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return b, nil
}

// stream opens a path of the API server.
func (a *api) stream(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return nil, fmt.Errorf("getting %s: %s: %s", path, resp.Status, b)
	}
	return resp.Body, nil
}

// resource finds the client of a kind. The namespace is used where the kind has one.
func (a *api) resource(kind schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	mapping, err := a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) { // a chart may have brought it since
		a.mapper.Reset()
		mapping, err = a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	}
	if err != nil {
		return nil, err
	}
	client := a.client.Resource(mapping.Resource)
	if mapping.Scope.Name() == "namespace" {
		return client.Namespace(namespace), nil
	}
	return client, nil
}

// apply applies the documents of a manifest, in the namespace where they name none.
func (a *api) apply(ctx context.Context, namespace, manifest string) error {
	objects, err := documents(manifest)
	if err != nil {
		return fmt.Errorf("reading the manifest: %w", err)
	}
	for _, o := range objects {
		if err := a.applyObject(ctx, namespace, o); err != nil {
			return fmt.Errorf("applying %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

func (a *api) applyObject(ctx context.Context, namespace string, o *unstructured.Unstructured) error {
	if o.GetNamespace() != "" {
		namespace = o.GetNamespace()
	}
	client, err := a.resource(o.GroupVersionKind(), namespace)
	if err != nil {
		return err
	}
	_, err = client.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	return err
}

// documents are the objects of a manifest.
func documents(manifest string) ([]*unstructured.Unstructured, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader([]byte(manifest))))
	var all []*unstructured.Unstructured
	for {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		o := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict(text, &o.Object); err != nil {
			return nil, fmt.Errorf("%w in:\n%s", err, text)
		}
		if len(o.Object) > 0 {
			all = append(all, o)
		}
	}
}

// get reads an object into a typed value. kind is such as "v1/Pod" or "apps/v1/DaemonSet".
func (a *api) get(ctx context.Context, kind, namespace, name string, into any) error {
	client, err := a.resource(parseKind(kind), namespace)
	if err != nil {
		return fmt.Errorf("reading %s %s: %w", kind, name, err)
	}
	o, err := client.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	return convert(o, into)
}

func parseKind(kind string) schema.GroupVersionKind {
	i := strings.LastIndex(kind, "/")
	return schema.FromAPIVersionAndKind(kind[:max(i, 0)], kind[i+1:])
}

func convert(o *unstructured.Unstructured, into any) error {
	return runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into)
}

// patch applies a JSON merge patch.
func (a *api) patch(ctx context.Context, kind, namespace, name string, change any) error {
	client, err := a.resource(parseKind(kind), namespace)
	if err != nil {
		return fmt.Errorf("changing %s %s: %w", kind, name, err)
	}
	b, err := json.Marshal(change)
	if err != nil {
		return err
	}
	_, err = client.Patch(ctx, name, "application/merge-patch+json", b, metav1.PatchOptions{FieldManager: fieldManager})
	return err
}

func (a *api) delete(ctx context.Context, kind, namespace, name string) error {
	client, err := a.resource(parseKind(kind), namespace)
	if err != nil {
		return fmt.Errorf("deleting %s %s: %w", kind, name, err)
	}
	return client.Delete(ctx, name, metav1.DeleteOptions{})
}
