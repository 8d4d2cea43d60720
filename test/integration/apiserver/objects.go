//go:build integration && linux

package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"keymount/test/integration/await"
)

// fieldManager is who the administrator is to server-side apply.
const fieldManager = "keymount-test"

// Apply applies manifests, each a file or a glob, with any number of documents per file, and returns the objects as the
// server holds them. When it returns, definitions are served and role bindings act.
func (s *Server) Apply(t testing.TB, patterns ...string) []*unstructured.Unstructured {
	t.Helper()
	var applied []*unstructured.Unstructured
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("applying %s: no such file (%v)", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			objects, err := s.apply(t.Context(), text)
			if err != nil {
				t.Fatalf("applying %s: %v", file, err)
			}
			applied = append(applied, objects...)
		}
	}
	s.settle(t, applied)
	return applied
}

// ApplyText applies a manifest that stands in the test.
func (s *Server) ApplyText(t testing.TB, text string) []*unstructured.Unstructured {
	t.Helper()
	applied, err := s.apply(t.Context(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s.settle(t, applied)
	return applied
}

func (s *Server) settle(t testing.TB, applied []*unstructured.Unstructured) {
	t.Helper()
	if err := s.awaitRights(t.Context(), applied); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) apply(ctx context.Context, manifest []byte) ([]*unstructured.Unstructured, error) {
	var applied []*unstructured.Unstructured
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return applied, nil
		}
		if err != nil {
			return nil, err
		}
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &object.Object); err != nil {
			return nil, err
		}
		if len(object.Object) == 0 {
			continue // nothing but comments
		}
		object, err = s.applyObject(ctx, object)
		if err != nil {
			return nil, err
		}
		applied = append(applied, object)
	}
}

func (s *Server) applyObject(ctx context.Context, object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	what := object.GetKind() + " " + object.GetName()
	client, err := s.resource(object)
	if err != nil {
		return nil, fmt.Errorf("applying %s: %w", what, err)
	}
	answer, err := client.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err != nil {
		return nil, fmt.Errorf("applying %s: %w", what, err)
	}
	if object.GetKind() == "CustomResourceDefinition" {
		return answer, s.awaitDefinition(ctx, object.GetName())
	}
	return answer, nil
}

// resource returns the client for an object's kind, and for its namespace where it has one.
func (s *Server) resource(object *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	gvk := object.GroupVersionKind()
	list, err := s.discovery.ServerResourcesForGroupVersion(gvk.GroupVersion().String())
	if err != nil {
		return nil, err
	}
	for _, r := range list.APIResources {
		if r.Kind != gvk.Kind || strings.Contains(r.Name, "/") {
			continue
		}
		client := s.client.Resource(gvk.GroupVersion().WithResource(r.Name))
		switch {
		case !r.Namespaced:
			return client, nil
		case object.GetNamespace() == "":
			return nil, errors.New("its kind is namespaced and it names no namespace")
		}
		return client.Namespace(object.GetNamespace()), nil
	}
	return nil, fmt.Errorf("the server has no kind %s", gvk)
}

// awaitDefinition waits until the kind is established and each of its versions can be discovered and listed.
func (s *Server) awaitDefinition(ctx context.Context, name string) error {
	definitions := s.client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	return await.For(ctx, "the definition "+name+" to be served", func(ctx context.Context) error {
		object, err := definitions.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		var crd struct {
			Spec struct {
				Group    string
				Names    struct{ Plural string }
				Versions []struct {
					Name   string
					Served bool
				}
			}
			Status struct{ Conditions []metav1.Condition }
		}
		text, err := object.MarshalJSON()
		if err == nil {
			err = json.Unmarshal(text, &crd)
		}
		if err != nil {
			return await.Never(err)
		}
		established := false
		for _, c := range crd.Status.Conditions {
			established = established || c.Type == "Established" && c.Status == metav1.ConditionTrue
		}
		if !established {
			return fmt.Errorf("it is not established: %v", crd.Status.Conditions)
		}
		for _, v := range crd.Spec.Versions {
			gv := schema.GroupVersion{Group: crd.Spec.Group, Version: v.Name}
			if !v.Served {
				continue
			}
			if err := s.discovery.RESTClient().Get().AbsPath("/apis/" + gv.String()).Do(ctx).Error(); err != nil {
				return err
			}
			if _, err := s.client.Resource(gv.WithResource(crd.Spec.Names.Plural)).List(ctx, metav1.ListOptions{Limit: 1}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Namespace makes a namespace of the test's own, with the service account "default", which a controller would make.
func (s *Server) Namespace(t testing.TB) string {
	t.Helper()
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace"}}
	object.SetGenerateName("test-")
	created, err := s.client.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")).Create(t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("creating a namespace: %v", err)
	}
	s.ServiceAccount(t, created.GetName(), "default", nil)
	return created.GetName()
}

// ServiceAccount makes a service account.
func (s *Server) ServiceAccount(t testing.TB, namespace, name string, annotations map[string]string) {
	t.Helper()
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ServiceAccount"}}
	object.SetNamespace(namespace)
	object.SetName(name)
	object.SetAnnotations(annotations)
	if _, err := s.applyObject(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// Pod creates a pod object and returns it as the server holds it, with its uid. What the test leaves out and the server
// wants is filled in: a name, a container. Nothing runs.
func (s *Server) Pod(t testing.TB, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	pod = pod.DeepCopy()
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	if pod.Name == "" && pod.GenerateName == "" {
		pod.GenerateName = "pod-"
	}
	if len(pod.Spec.Containers) == 0 {
		pod.Spec.Containers = []corev1.Container{{Name: "main", Image: "none.invalid/never-pulled:1"}}
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pod)
	if err != nil {
		t.Fatal(err)
	}
	created, err := s.client.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(pod.Namespace).
		Create(t.Context(), &unstructured.Unstructured{Object: content}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("creating pod %s/%s: %v", pod.Namespace, pod.Name, err)
	}
	answer := &corev1.Pod{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(created.Object, answer); err != nil {
		t.Fatal(err)
	}
	return answer
}
