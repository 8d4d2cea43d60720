package charts

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
)

const (
	daemonSetName = "DaemonSet/test-secrets-store-csi-driver"
	csiDriverName = "CSIDriver/secrets-store.csi.k8s.io"
	syncing       = "syncSecret: {enabled: true}"
	annotations   = "serviceAccountAnnotations: [azure.workload.identity/client-id]"
)

func claim(t *testing.T, rows ...string) {
	t.Helper()
	for _, row := range rows {
		t.Attr("conformance", row)
	}
}

// node returns the DaemonSet of the driver's chart and its container for some values.
func node(t *testing.T, text string) (*appsv1.DaemonSet, corev1.Container) {
	t.Helper()
	set := find[*appsv1.DaemonSet](t, objects(t, driverChart, text), daemonSetName)
	driver, _ := container(t, set.Spec.Template.Spec, "secrets-store")
	return set, driver
}

// What of upstream's objects is there, by its name, and nothing else: no hook Jobs and what they need, no pod security policies.
func TestDriverObjects(t *testing.T) {
	t.Parallel()
	always := []string{daemonSetName, csiDriverName, "ServiceAccount/secrets-store-csi-driver",
		"ClusterRole/secretproviderclasses-role", "ClusterRoleBinding/secretproviderclasses-rolebinding",
		"ClusterRole/secretproviderclasses-admin-role", "ClusterRole/secretproviderclasses-viewer-role",
		"ClusterRole/secretproviderclasspodstatuses-viewer-role"}
	upstream, err := os.ReadFile("testdata/upstream-values/secrets-store-csi-driver-1.6.0.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for text, more := range map[string][]string{
		"":                            nil,
		string(upstream):              nil,
		syncing:                       {"ClusterRole/secretprovidersyncing-role", "ClusterRoleBinding/secretprovidersyncing-rolebinding"},
		annotations:                   {"ClusterRole/keymount-serviceaccounts-role", "ClusterRoleBinding/keymount-serviceaccounts-rolebinding"},
		"rbac: {tokenKeys: true}":     {"ClusterRole/keymount-tokenkeys-role", "ClusterRoleBinding/keymount-tokenkeys-rolebinding"},
		"podMonitor: {enabled: true}": {"PodMonitor/test-secrets-store-csi-driver"},
	} {
		want := slices.Sorted(slices.Values(slices.Concat(always, more)))
		if got := objects(t, driverChart, text).names(); !slices.Equal(got, want) {
			t.Errorf("with %q there are\n%v, want\n%v", text, got, want)
		}
	}
	without := objects(t, driverChart, "{rbac: {install: false}, "+syncing+", "+annotations+", linux: {enabled: false}}").names()
	if want := []string{csiDriverName, "ServiceAccount/secrets-store-csi-driver"}; !slices.Equal(without, want) {
		t.Errorf("without roles and Linux nodes there are %v, want %v", without, want)
	}
}

// Rights are reviewed in deploy/rbac; the chart grants the same.
func TestDriverRights(t *testing.T) {
	t.Parallel()
	claim(t, "12.2/chart-rights")
	chart := objects(t, driverChart, "{"+syncing+", "+annotations+", rbac: {tokenKeys: true}}")
	files, err := filepath.Glob("../deploy/rbac/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("deploy/rbac: %v", err)
	}
	compared := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range parse(t, text) {
			compared++
			got := chart[name]
			switch want := want.(type) {
			case *rbacv1.ClusterRole:
				got := find[*rbacv1.ClusterRole](t, chart, name)
				if !reflect.DeepEqual(got.Rules, want.Rules) {
					t.Errorf("%s: rules are\n%v, in %s\n%v", name, got.Rules, file, want.Rules)
				}
				for _, label := range []string{"admin", "edit", "view"} {
					label = "rbac.authorization.k8s.io/aggregate-to-" + label
					if got.Labels[label] != want.Labels[label] {
						t.Errorf("%s: label %s is %q, in %s %q", name, label, got.Labels[label], file, want.Labels[label])
					}
				}
			case *rbacv1.ClusterRoleBinding:
				got := find[*rbacv1.ClusterRoleBinding](t, chart, name)
				if !reflect.DeepEqual(got.Subjects, want.Subjects) || got.RoleRef != want.RoleRef {
					t.Errorf("%s: %v %v, in %s %v %v", name, got.RoleRef, got.Subjects, file, want.RoleRef, want.Subjects)
				}
			case *corev1.ServiceAccount:
				if got == nil || got.GetNamespace() != want.Namespace {
					t.Errorf("%s is not in the chart", name)
				}
			default:
				t.Errorf("%s: %s is of an unexpected kind", file, name)
			}
		}
	}
	for name := range chart {
		if strings.HasPrefix(name, "ClusterRole") || strings.HasPrefix(name, "ServiceAccount") {
			compared--
		}
	}
	if compared != 0 {
		t.Errorf("deploy/rbac and the chart differ by %d objects", compared)
	}
}

// What others select and reach the pods by.
func TestDriverNames(t *testing.T) {
	t.Parallel()
	claim(t, "12.2/chart-names")
	for _, mode := range []struct {
		text       string
		containers []string
	}{
		{"", []string{"secrets-store"}},
		{"linux: {sidecars: true}", []string{"node-driver-registrar", "secrets-store", "liveness-probe"}},
	} {
		set, driver := node(t, mode.text)
		var names []string
		for _, c := range set.Spec.Template.Spec.Containers {
			names = append(names, c.Name)
		}
		if !slices.Equal(names, mode.containers) {
			t.Errorf("containers are %v, want %v", names, mode.containers)
		}
		if len(set.Spec.Selector.MatchLabels) != 1 || set.Spec.Selector.MatchLabels["app"] != driverChart {
			t.Errorf("the selector is %v, and cannot be changed by an upgrade of upstream's", set.Spec.Selector)
		}
		if set.Spec.Template.Labels["app"] != driverChart || set.Spec.Template.Spec.ServiceAccountName != driverChart {
			t.Errorf("pods have labels %v and account %s", set.Spec.Template.Labels, set.Spec.Template.Spec.ServiceAccountName)
		}
		ports := map[string]int32{}
		for _, port := range driver.Ports {
			ports[port.Name] = port.ContainerPort
		}
		if want := map[string]int32{"healthz": 9808, "metrics": 8095}; !reflect.DeepEqual(ports, want) {
			t.Errorf("ports are %v, want %v", ports, want)
		}
		if path := hostPath(set, "plugin-dir"); path != "/var/lib/kubelet/plugins/csi-secrets-store/" {
			t.Errorf("the CSI socket is in %s", path)
		}
	}
}

func hostPath(set *appsv1.DaemonSet, volume string) string {
	for _, v := range set.Spec.Template.Spec.Volumes {
		if v.Name == volume && v.HostPath != nil {
			return v.HostPath.Path
		}
	}
	return ""
}

// Users' labels do not take the pods away from the DaemonSet, and an annotation of theirs wins.
func TestDriverLabels(t *testing.T) {
	t.Parallel()
	set, _ := node(t, `{commonLabels: {app: mine, a: b}, linux: {podLabels: {app: mine, c: d},
		podAnnotations: {kubectl.kubernetes.io/default-container: other}}}`)
	labels := set.Spec.Template.Labels
	if labels["app"] != driverChart || labels["a"] != "b" || labels["c"] != "d" || set.Labels["a"] != "b" {
		t.Errorf("labels are %v and %v", set.Labels, labels)
	}
	if got := set.Spec.Template.Annotations["kubectl.kubernetes.io/default-container"]; got != "other" {
		t.Errorf("the annotation is %q", got)
	}
}

// The CSIDriver object: tokens go in the secrets of requests where the API server can do that, whatever its vendor calls its
// version.
func TestCSIDriver(t *testing.T) {
	t.Parallel()
	claim(t, "12.3/chart-csidriver")
	const tokens = "tokenRequests: [{audience: a}]"
	for _, row := range []struct {
		version, text      string
		secrets, published bool
		missing            bool
	}{
		{"v1.30.0", "", false, false, false},
		{"v1.34.9", tokens, false, false, false},
		{"v1.35.0", "", false, false, false},
		{"v1.35.0", tokens, true, false, false},
		{"v1.35.1-eks-ab12", tokens, true, false, false},
		{"v1.35.1-gke.100", tokens, true, false, false},
		{"v1.35.2+k3s1", tokens, true, false, false},
		{"v1.35.2", "{enableSecretRotation: true, preventPodSchedulingIfMissing: true}", false, true, false},
		{"v1.36.0-rc.0", "{enableSecretRotation: 'true', preventPodSchedulingIfMissing: true}", false, true, true},
	} {
		i := installation{KubeVersion: row.version, Values: values(t, row.text)}
		spec := find[*storagev1.CSIDriver](t, i.objects(t, driverChart), csiDriverName).Spec
		yes := func(b *bool) bool { return b != nil && *b }
		if yes(spec.ServiceAccountTokenInSecrets) != row.secrets || yes(spec.RequiresRepublish) != row.published ||
			yes(spec.PreventPodSchedulingIfMissing) != row.missing || (len(spec.TokenRequests) > 0) != (row.text == tokens) {
			t.Errorf("%s with %q: %+v", row.version, row.text, spec)
		}
		if *spec.AttachRequired || !*spec.PodInfoOnMount || !slices.Equal(spec.VolumeLifecycleModes, []storagev1.VolumeLifecycleMode{"Ephemeral"}) ||
			spec.FSGroupPolicy != nil || spec.SELinuxMount != nil || spec.StorageCapacity != nil {
			t.Errorf("%s: what cannot be changed afterwards is %+v", row.version, spec)
		}
	}
}

// equal compares objects by what the API server would be sent.
func equal(t *testing.T, a, b objectSet) bool {
	t.Helper()
	one, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	other, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(one) == string(other)
}
