package v1_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	v1 "keymount/api/v1"
	"keymount/api/v1alpha1"
)

const class = `
apiVersion: secrets-store.csi.x-k8s.io/VERSION
kind: SecretProviderClass
metadata: {name: web, namespace: shop, creationTimestamp: null}
spec:
  provider: azure
  parameters: {keyvaultName: v, objects: "array: []"}
  secretObjects:
  - secretName: tls
    type: kubernetes.io/tls
    labels: {a: b}
    annotations: {c: d}
    data:
    - {objectName: nested/bar, key: tls.crt}
status: {}
`

const podStatus = `
apiVersion: secrets-store.csi.x-k8s.io/VERSION
kind: SecretProviderClassPodStatus
metadata: {name: pod-shop-web, namespace: shop, creationTimestamp: null}
status:
  podName: pod
  secretProviderClassName: web
  mounted: true
  targetPath: /var/lib/kubelet/x
  objects:
  - {id: secret/a, version: "1"}
`

const podStatusWithConditions = podStatus + `
  conditions:
  - type: UpToDate
    status: "False"
    reason: Denied
    message: why
    lastTransitionTime: "2026-01-31T12:00:00Z"
    observedGeneration: 3
  - {type: Other}
`

const byPod = `
apiVersion: secrets-store.csi.x-k8s.io/VERSION
kind: SecretProviderClass
metadata: {creationTimestamp: null}
spec: {}
status:
  byPod:
  - {id: pod, namespace: shop}
`

// A manifest survives the types as it is: every field is known, and none is added.
func TestManifestsRoundTrip(t *testing.T) {
	t.Attr("conformance", "12.1/json")
	for _, tc := range []struct {
		name     string
		manifest string
		object   runtime.Object
	}{
		{"class v1", class, &v1.SecretProviderClass{}},
		{"class v1alpha1", class, &v1alpha1.SecretProviderClass{}},
		{"class v1alpha1 by pod", byPod, &v1alpha1.SecretProviderClass{}},
		{"pod status v1", podStatus, &v1.SecretProviderClassPodStatus{}},
		{"pod status v1alpha1", podStatus, &v1alpha1.SecretProviderClassPodStatus{}},
		{"pod status v1 with conditions", podStatusWithConditions, &v1.SecretProviderClassPodStatus{}},
		{"pod status v1alpha1 with conditions", podStatusWithConditions, &v1alpha1.SecretProviderClassPodStatus{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := []byte(tc.manifest)
			var want map[string]any
			if err := yaml.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			if err := yaml.UnmarshalStrict(text, tc.object); err != nil {
				t.Fatal(err)
			}
			copied := tc.object.DeepCopyObject()
			if !reflect.DeepEqual(copied, tc.object) {
				t.Error("the deep copy differs")
			}
			out, err := json.Marshal(copied)
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatal(err)
			}
			delete(want["metadata"].(map[string]any), "creationTimestamp")
			delete(got["metadata"].(map[string]any), "creationTimestamp")
			if !reflect.DeepEqual(got, want) {
				t.Errorf("became %v, was %v", got, want)
			}
		})
	}
}

func TestSchemeKnowsEveryKind(t *testing.T) {
	t.Attr("conformance", "12.1/types")
	scheme := runtime.NewScheme()
	for version, add := range map[string]func(*runtime.Scheme) error{"v1": v1.AddToScheme, "v1alpha1": v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"SecretProviderClass", "SecretProviderClassList",
			"SecretProviderClassPodStatus", "SecretProviderClassPodStatusList"} {
			gvk := schema.GroupVersionKind{Group: "secrets-store.csi.x-k8s.io", Version: version, Kind: kind}
			if _, err := scheme.New(gvk); err != nil {
				t.Error(err)
			}
		}
	}
}
