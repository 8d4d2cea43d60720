package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"

	apiv1 "keymount/api/v1"
)

const (
	classGroup = "secrets-store.csi.x-k8s.io"
	classKind  = "SecretProviderClass"
	// maxManifest bounds a manifest in bytes; an API server takes no object above 1.5 MiB or so.
	maxManifest = 4 << 20
)

// A class is what a manifest says, with what people should know about how it was read.
type class struct {
	*apiv1.SecretProviderClass
	warnings []string
}

// readClass reads the one SecretProviderClass of a file, or the one called name if that is not empty. "-" is in. Documents of
// other kinds are left aside, so that the file may be a whole application.
func readClass(file, name string, in io.Reader) (*class, error) {
	source := file
	if file == "-" {
		source = "standard input"
	} else {
		f, err := os.Open(file)
		if err != nil {
			return nil, invalidf("reading the class: %v", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxManifest+1))
	switch {
	case err != nil:
		return nil, invalidf("reading the class: %v", err)
	case len(data) > maxManifest:
		return nil, invalidf("reading the class: %s has more than %d bytes", source, maxManifest)
	}
	found, others, err := classesIn(data, source)
	if err != nil {
		return nil, err
	}
	return choose(found, others, name, source)
}

// classesIn returns the classes of a manifest and the other kinds that it holds.
func classesIn(data []byte, source string) (found []*class, others []string, err error) {
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for n := 1; ; n++ {
		doc, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return found, others, nil
		} else if err != nil {
			return nil, nil, invalidf("%s, document %d: %v", source, n, err)
		}
		c, kind, err := readDocument(doc)
		switch {
		case err != nil:
			return nil, nil, invalidf("%s, document %d: %v", source, n, err)
		case c != nil:
			found = append(found, c)
		case kind != "":
			others = append(others, kind)
		}
	}
}

// readDocument returns the class of a document, or the kind that it is instead; neither for an empty one.
func readDocument(doc []byte) (c *class, kind string, err error) {
	var content any
	if err := sigsyaml.Unmarshal(doc, &content); err != nil || content == nil {
		return nil, "", err
	}
	head := metav1.TypeMeta{}
	if err := sigsyaml.Unmarshal(doc, &head); err != nil || head.APIVersion == "" || head.Kind == "" {
		return nil, "", errors.New("it lacks apiVersion or kind, so it is no Kubernetes manifest")
	}
	group, version, _ := strings.Cut(head.APIVersion, "/")
	switch {
	case head.Kind != classKind:
		return nil, head.Kind, nil
	case group != classGroup || version != "v1" && version != "v1alpha1":
		return nil, "", fmt.Errorf("the apiVersion of a %s is %s/v1 or %s/v1alpha1, not %q", classKind, classGroup, classGroup, head.APIVersion)
	}
	c, err = decodeClass(doc)
	return c, "", err
}

func choose(found []*class, others []string, name, source string) (*class, error) {
	var names []string
	var chosen []*class
	for _, c := range found {
		names = append(names, c.Name)
		if name == "" || c.Name == name {
			chosen = append(chosen, c)
		}
	}
	switch {
	case len(found) == 0 && len(others) > 0:
		return nil, invalidf("%s holds no %s, only %s", source, classKind, strings.Join(others, ", "))
	case len(found) == 0:
		return nil, invalidf("%s holds no %s", source, classKind)
	case len(chosen) == 0:
		return nil, invalidf("%s holds no class %q, only %s", source, name, strings.Join(names, ", "))
	case len(chosen) > 1 && name == "":
		return nil, &usageError{fmt.Sprintf("%s holds %d classes: %s", source, len(chosen), strings.Join(names, ", ")), "choose one with --class NAME"}
	case len(chosen) > 1:
		return nil, invalidf("%s holds %d classes called %q", source, len(chosen), name)
	}
	return chosen[0], nil
}

// decodeClass decodes one document. Both versions of the API have the same spec. A field that the API does not have is no
// error, since an API server may have dropped it silently for years; but it is worth a word, being a misspelling as a rule.
func decodeClass(doc []byte) (*class, error) {
	c := &class{SecretProviderClass: &apiv1.SecretProviderClass{}}
	data, err := sigsyaml.YAMLToJSON(doc)
	if err != nil {
		return nil, err
	}
	var wrong *json.UnmarshalTypeError
	if err := json.Unmarshal(data, c.SecretProviderClass); errors.As(err, &wrong) {
		return nil, wrongType(wrong, data)
	} else if err != nil {
		return nil, err
	}
	strict := json.NewDecoder(bytes.NewReader(data))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&apiv1.SecretProviderClass{}); err != nil {
		c.warnings = append(c.warnings, "the class has a field that means nothing: "+strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := sigsyaml.YAMLToJSONStrict(doc); err != nil {
		c.warnings = append(c.warnings, fmt.Sprintf("the class says something twice: %v", err))
	}
	if c.Name == "" {
		return nil, errors.New("the class has no metadata.name")
	}
	if c.Namespace == "" {
		c.Namespace = "default"
	}
	return c, nil
}

// wrongType says which field has a value of another type than the API's. The decoder names the map of the parameters, but not
// the one in it that is wrong: most often that is objects, written as a list where the API has the text of one.
func wrongType(wrong *json.UnmarshalTypeError, manifest []byte) error {
	field, value := wrong.Field, valueName(strings.Fields(wrong.Value)[0]) // as in "number 5"
	advice := "is it text that needs quotes?"
	if key, kind := firstNotText(manifest); field == "spec.parameters" && key != "" {
		field, value = field+"."+key, valueName(kind)
		if kind == "array" || kind == "object" {
			advice = fmt.Sprintf("write %q, which makes text of all that is indented below it", key+": |")
		}
	}
	return fmt.Errorf("%s holds %s where the API has %s: %s", field, value, typeName(wrong.Type), advice)
}

// firstNotText returns the parameter that the decoder has stumbled over, and what it is in JSON.
func firstNotText(manifest []byte) (key, kind string) {
	var m struct {
		Spec struct {
			Parameters map[string]any `json:"parameters"`
		} `json:"spec"`
	}
	if json.Unmarshal(manifest, &m) != nil {
		return "", ""
	}
	for _, key := range slices.Sorted(maps.Keys(m.Spec.Parameters)) {
		switch m.Spec.Parameters[key].(type) {
		case []any:
			return key, "array"
		case map[string]any:
			return key, "object"
		case bool:
			return key, "bool"
		case float64:
			return key, "number"
		}
	}
	return "", ""
}

// valueName is how people who write manifests call a type of JSON's.
func valueName(kind string) string {
	switch kind {
	case "array":
		return "a list"
	case "object":
		return "a map"
	}
	return "a " + kind
}

// typeName is how people who write manifests call a type.
func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "a map"
	case reflect.Slice:
		return "a list"
	}
	return "a " + t.Kind().String()
}
