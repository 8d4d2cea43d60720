//go:build integration && linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"keymount/internal/volume/volumetest"
	"keymount/test/integration/apiserver"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// upstreamDefinitions are the definitions as upstream's: without status.conditions.
func upstreamDefinitions(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(repository, "api/crds/*.yaml"))
	if err != nil || len(files) != 2 {
		t.Fatalf("definitions: %v, %v", files, err)
	}
	var all []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var definition map[string]any
		if err := yaml.Unmarshal(text, &definition); err != nil {
			t.Fatal(err)
		}
		versions, _, _ := unstructured.NestedSlice(definition, "spec", "versions")
		for _, version := range versions {
			unstructured.RemoveNestedField(version.(map[string]any), "schema", "openAPIV3Schema", "properties", "status", "properties", "conditions")
		}
		if err := unstructured.SetNestedSlice(definition, versions, "spec", "versions"); err != nil {
			t.Fatal(err)
		}
		if text, err = yaml.Marshal(definition); err != nil || strings.Contains(string(text), "conditions") {
			t.Fatalf("conditions are still in %s (%v)", file, err)
		}
		all = append(all, string(text))
	}
	return strings.Join(all, "---\n")
}

// Everything in the cluster is upstream's (definitions, role and account by their own names, CSIDriver object), and only the
// image of the DaemonSet is another.
func TestRootUpstreamInstallation(t *testing.T) {
	claim(t, "12.1/without-conditions", "12.2/rights-of-upstream-1.6.0")
	volumetest.NeedRoot(t)
	server := apiserver.Start(t)
	server.ApplyText(t, upstreamDefinitions(t))
	server.Apply(t, "testdata/rbac-upstream-1.6.0.yaml")
	ns := server.Namespace(t)
	server.ApplyText(t, fmt.Sprintf(`
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: %s}
spec: {podInfoOnMount: true, attachRequired: false, volumeLifecycleModes: [Ephemeral], requiresRepublish: true}
---
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: app, namespace: %s}
spec: {provider: other, parameters: {key: value}}
`, driver.Name, ns))

	d := driver.New(t, server, driver.Options{Upstream: true, Args: append(upstreamRotation(), upstreamArguments...)})
	r := &rig{T: t, ns: ns, driver: d, kubelet: kubelet.New(d.Kubelet, driver.Node, kubelet.FromConfig(server.Client()))}
	d.Start()
	r.registrar()
	r.register()
	p := r.provide(d.MoreProviders, "other")
	for n := range 2 {
		p.say(content("v1", "a"))
		pod := server.Pod(t, &corev1.Pod{ObjectMeta: metaIn(ns), Spec: corev1.PodSpec{ServiceAccountName: "default", NodeName: driver.Node,
			Volumes: []corev1.Volume{kubelet.Inline("secrets", driver.Name, map[string]string{"secretProviderClass": "app"})}}})
		v, err := r.kubelet.Volume(pod, "secrets")
		if err != nil {
			t.Fatal(err)
		}
		r.mustPublish(v)
		p.say(content("v2", "a"))
		r.mustRepublish(v)
		r.wantTree(v, map[string]string{"a": "a v2"})
		status, err := server.Client().Resource(statusGVR).Namespace(ns).Get(t.Context(), pod.Name+"-"+ns+"-app", metav1.GetOptions{})
		if err != nil || objectsIn(status) != "secret/a=v2" {
			t.Errorf("volume %d: status %v, %v", n, status, err)
		}
		r.mustUnpublish(v)
	}
	d.Stop()
	if got := server.Forbidden(t, apiserver.User(driver.Namespace, driver.ServiceAccount)); len(got) > 0 {
		t.Errorf("forbidden: %+v", got)
	}
	if n := r.logged("has no status.conditions"); n != 1 {
		t.Errorf("that the definition lacks conditions was said %d times", n)
	}
	events, err := server.Client().Resource(corev1.SchemeGroupVersion.WithResource("events")).Namespace(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(events.Items) != 2 {
		t.Errorf("%d Events, %v", len(events.Items), err)
	}
}
