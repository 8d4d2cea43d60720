package v1_test

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// What the definitions are, from the contract with existing manifests and tools: an entry too many breaks them as surely
// as one too few (a required field refuses objects that are in use; a status subresource drops what existing writers write;
// a short name shifts the columns of `kubectl api-resources`).
const classFields = `
apiVersion string
kind string
metadata object
spec object
spec.parameters object of string
spec.provider string
spec.secretObjects array
spec.secretObjects[] object
spec.secretObjects[].annotations object of string
spec.secretObjects[].data array
spec.secretObjects[].data[] object
spec.secretObjects[].data[].key string
spec.secretObjects[].data[].objectName string
spec.secretObjects[].labels object of string
spec.secretObjects[].secretName string
spec.secretObjects[].type string
status object
`

const classAlphaFields = classFields + `
status.byPod array
status.byPod[] object
status.byPod[].id string
status.byPod[].namespace string
`

// status.conditions is Keymount's own, optional as everything, in both versions; the rest is upstream's.
const podStatusFields = `
apiVersion string
kind string
metadata object
status object
status.conditions array
status.conditions[] object
status.conditions[].lastTransitionTime string as date-time
status.conditions[].message string
status.conditions[].observedGeneration integer as int64
status.conditions[].reason string
status.conditions[].status string
status.conditions[].type string
status.mounted boolean
status.objects array
status.objects[] object
status.objects[].id string
status.objects[].version string
status.podName string
status.secretProviderClassName string
status.targetPath string
`

const classWarning = "secrets-store.csi.x-k8s.io/v1alpha1 is deprecated. Use secrets-store.csi.x-k8s.io/v1 instead."

func TestDefinitions(t *testing.T) {
	t.Attr("conformance", "12.1/group-and-kinds")
	t.Attr("conformance", "12.1/versions")
	t.Attr("conformance", "12.1/nothing-more")
	t.Attr("conformance", "12.1/fields")
	for _, tc := range []struct {
		plural, singular, kind string
		warning                any // of v1alpha1
		v1, v1alpha1           string
	}{
		{"secretproviderclasses", "secretproviderclass", "SecretProviderClass", classWarning, classFields, classAlphaFields},
		{"secretproviderclasspodstatuses", "secretproviderclasspodstatus", "SecretProviderClassPodStatus", nil,
			podStatusFields, podStatusFields},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			const group = "secrets-store.csi.x-k8s.io"
			crd := read(t, group+"_"+tc.plural+".yaml")
			alpha := map[string]any{"name": "v1alpha1", "served": true, "storage": false, "deprecated": true}
			if tc.warning != nil {
				alpha["deprecationWarning"] = tc.warning
			}
			versions := crd["spec"].(map[string]any)["versions"].([]any)
			if len(versions) != 2 {
				t.Fatalf("%d versions, want 2", len(versions))
			}
			checkSchema(t, versions[0], tc.v1)
			checkSchema(t, versions[1], tc.v1alpha1)
			// With the schemas taken out above, what is left is the whole definition.
			equal(t, "definition", crd, map[string]any{
				"apiVersion": "apiextensions.k8s.io/v1",
				"kind":       "CustomResourceDefinition",
				"metadata": map[string]any{
					"name":        tc.plural + "." + group,
					"annotations": map[string]any{"controller-gen.kubebuilder.io/version": "v0.23.0"},
				},
				"spec": map[string]any{
					"group": group,
					"names": map[string]any{
						"kind": tc.kind, "listKind": tc.kind + "List", "plural": tc.plural, "singular": tc.singular,
					},
					"scope":    "Namespaced",
					"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true}, alpha},
				},
			})
		})
	}
}

func read(t *testing.T, name string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "crds", name))
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := yaml.UnmarshalStrict(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// checkSchema compares the fields of one version with the table, and takes the schema out of it.
func checkSchema(t *testing.T, version any, table string) {
	t.Helper()
	v := version.(map[string]any)
	schema := v["schema"].(map[string]any)
	root := schema["openAPIV3Schema"].(map[string]any)
	delete(schema, "openAPIV3Schema")
	equal(t, "schema beside openAPIV3Schema", schema, map[string]any{})
	delete(v, "schema")

	var got []string
	walk(t, root, "", &got)
	got = slices.DeleteFunc(got, func(line string) bool { return line == " object" }) // the object itself
	want := slices.DeleteFunc(strings.Split(table, "\n"), func(line string) bool { return line == "" })
	slices.Sort(got)
	slices.Sort(want)
	equal(t, "fields of "+v["name"].(string), got, want)
}

// walk lists every field with its type. A word of the schema language that it does not know is an error: required, enum,
// default, x-kubernetes-list-type and the like.
func walk(t *testing.T, node map[string]any, path string, out *[]string) {
	t.Helper()
	line := path + " " + node["type"].(string)
	for word, value := range node {
		switch word {
		case "type", "description":
		case "format":
			line += " as " + value.(string)
		case "properties":
			for name, child := range value.(map[string]any) {
				walk(t, child.(map[string]any), strings.TrimPrefix(path+"."+name, "."), out)
			}
		case "items":
			walk(t, value.(map[string]any), path+"[]", out)
		case "additionalProperties":
			values := value.(map[string]any)
			line += " of " + values["type"].(string)
			if len(values) != 1 {
				t.Errorf("%s: values are %v", path, values)
			}
		default:
			t.Errorf("%s: %q has no place in this schema", path, word)
		}
	}
	*out = append(*out, line)
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}
