package charts

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// podMonitor is what of the Prometheus operator's type the charts use.
type podMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector            metav1.LabelSelector `json:"selector"`
		PodMetricsEndpoints []struct {
			Port              string           `json:"port"`
			Interval          string           `json:"interval"`
			ScrapeTimeout     string           `json:"scrapeTimeout"`
			Relabelings       []map[string]any `json:"relabelings"`
			MetricRelabelings []map[string]any `json:"metricRelabelings"`
		} `json:"podMetricsEndpoints"`
	} `json:"spec"`
}

// kinds are the types of the objects that charts may have.
var kinds = map[string]func() metav1.Object{
	"v1/ServiceAccount":                               func() metav1.Object { return &corev1.ServiceAccount{} },
	"v1/Secret":                                       func() metav1.Object { return &corev1.Secret{} },
	"apps/v1/DaemonSet":                               func() metav1.Object { return &appsv1.DaemonSet{} },
	"storage.k8s.io/v1/CSIDriver":                     func() metav1.Object { return &storagev1.CSIDriver{} },
	"rbac.authorization.k8s.io/v1/ClusterRole":        func() metav1.Object { return &rbacv1.ClusterRole{} },
	"rbac.authorization.k8s.io/v1/ClusterRoleBinding": func() metav1.Object { return &rbacv1.ClusterRoleBinding{} },
	"rbac.authorization.k8s.io/v1/Role":               func() metav1.Object { return &rbacv1.Role{} },
	"rbac.authorization.k8s.io/v1/RoleBinding":        func() metav1.Object { return &rbacv1.RoleBinding{} },
	"monitoring.coreos.com/v1/PodMonitor":             func() metav1.Object { return &podMonitor{} },
}

// objectSet holds objects by "Kind/name".
type objectSet map[string]metav1.Object

func (s objectSet) names() []string { return slices.Sorted(maps.Keys(s)) }

// parse reads documents into the types of the API, as strictly as the API server can: a field that is not there, a key that
// is there twice and a value of another type are errors.
func parse(t *testing.T, documents []byte) objectSet {
	t.Helper()
	set, err := parseObjects(documents)
	if err != nil {
		t.Fatalf("%v in:\n%s", err, documents)
	}
	return set
}

func parseObjects(documents []byte) (objectSet, error) {
	set := objectSet{}
	for _, document := range split(documents) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			return nil, err
		}
		newObject, ok := kinds[kind.APIVersion+"/"+kind.Kind]
		if !ok {
			return nil, fmt.Errorf("an object of unexpected kind %s/%s", kind.APIVersion, kind.Kind)
		}
		object := newObject()
		if err := yaml.UnmarshalStrict(document, object); err != nil {
			return nil, err
		}
		name := kind.Kind + "/" + object.GetName()
		if set[name] != nil {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		set[name] = object
	}
	return set, nil
}

// split returns the YAML documents that say anything.
func split(documents []byte) (all [][]byte) {
	for _, document := range bytes.Split(append([]byte("\n"), documents...), []byte("\n---")) {
		var content any
		if err := yaml.Unmarshal(document, &content); err != nil || content != nil {
			all = append(all, document)
		}
	}
	return all
}

// find returns the object of a type and name.
func find[T metav1.Object](t *testing.T, set objectSet, name string) T {
	t.Helper()
	object, ok := set[name].(T)
	if !ok {
		t.Fatalf("there is no %s among %v", name, set.names())
	}
	return object
}

// container returns the container of a name, and its index.
func container(t *testing.T, pod corev1.PodSpec, name string) (corev1.Container, int) {
	t.Helper()
	i := slices.IndexFunc(pod.Containers, func(c corev1.Container) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("there is no container %s", name)
	}
	return pod.Containers[i], i
}

func TestParsingIsStrict(t *testing.T) {
	valid := "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n"
	if _, err := parseObjects([]byte(valid)); err != nil {
		t.Fatal(err)
	}
	for name, document := range map[string]string{
		"unknown field":  valid + "automountToken: true\n",
		"wrong type":     valid + "automountServiceAccountToken: \"true\"\n",
		"duplicate key":  valid + "kind: ServiceAccount\n",
		"unknown kind":   "apiVersion: v1\nkind: Job\n",
		"same object":    valid + "---\n" + valid,
		"broken":         valid + "a: [\n",
		"other document": valid + "---\na: b\n",
	} {
		if _, err := parseObjects([]byte(document)); err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
}
