//go:build integration && linux

package integration

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	v1 "keymount/api/v1"
	"keymount/internal/podstatus"
	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/test/integration/apiserver"
)

const (
	statusDefinition = "api/crds/secrets-store.csi.x-k8s.io_secretproviderclasspodstatuses.yaml"
	daemonRights     = "deploy/rbac/rbac-secretproviderclass.yaml"
)

// A statusRig is a recorder with the rights of the daemon, and what an administrator sees.
type statusRig struct {
	*podstatus.Recorder
	t      *testing.T
	server *apiserver.Server
	logs   *logs
	user   string
	seen   int // requests
}

func newStatusRig(t *testing.T, server *apiserver.Server) *statusRig {
	r := &statusRig{t: t, server: server, logs: &logs{}, user: apiserver.User("kube-system", "secrets-store-csi-driver")}
	r.restart()
	r.asked()
	return r
}

func (r *statusRig) restart() {
	r.t.Helper()
	recorder, err := podstatus.New(podstatus.Config{NodeID: "node-1", Log: r.logs.logger(),
		API: r.server.ConfigFor(r.server.Token(r.t, "kube-system", "secrets-store-csi-driver").Token)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.Recorder = recorder
}

// asked counts the recorder's requests since the last call.
func (r *statusRig) asked() map[string]int {
	r.t.Helper()
	all := r.server.Requests(r.t, r.user)
	counts := map[string]int{}
	for what, n := range apiserver.Counts(all[r.seen:]) {
		counts[strings.TrimSuffix(what, " secretproviderclasspodstatuses."+v1.Group)] = n
	}
	r.seen = len(all)
	return counts
}

func (r *statusRig) wantAsked(what string, want map[string]int) {
	r.t.Helper()
	if got := r.asked(); !maps.Equal(got, want) {
		r.t.Errorf("%s asked %v, want %v", what, got, want)
	}
}

func (r *statusRig) objects(namespace, version string) dynamic.ResourceInterface {
	gvr := v1.GroupVersion().WithResource("secretproviderclasspodstatuses")
	gvr.Version = version
	return r.server.Client().Resource(gvr).Namespace(namespace)
}

func (r *statusRig) get(namespace, name string) (*v1.SecretProviderClassPodStatus, *unstructured.Unstructured) {
	r.t.Helper()
	object, err := r.objects(namespace, "v1").Get(r.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	status := &v1.SecretProviderClassPodStatus{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, status); err != nil {
		r.t.Fatal(err)
	}
	return status, object
}

func (r *statusRig) pod(namespace, name string) *corev1.Pod {
	return r.server.Pod(r.t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})
}

func statusVolume(pod *corev1.Pod, class, volume string) *publish.Volume {
	return &publish.Volume{
		ID:      "csi-" + string(pod.UID) + volume,
		Target:  "/var/lib/kubelet/pods/" + string(pod.UID) + "/volumes/kubernetes.io~csi/" + volume + "/mount",
		Class:   publish.Class{Namespace: pod.Namespace, Name: class},
		Request: provider.Request{Pod: provider.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)}},
	}
}

func (r *statusRig) record(v *publish.Volume, first bool, versions ...provider.ObjectVersion) {
	r.t.Helper()
	if err := r.RecordStatus(r.t.Context(), v, &publish.Result{Fetched: true, First: first, Versions: versions}); err != nil {
		r.t.Error(err)
	}
}

func (r *statusRig) fail(v *publish.Volume) {
	r.t.Helper()
	if err := r.RecordFailure(r.t.Context(), v, &provider.Error{Kind: provider.Denied, Message: "reading a", Remedy: "grant it"}); err != nil {
		r.t.Error(err)
	}
}

var (
	statusA1 = provider.ObjectVersion{ID: "secret/a", Version: "1"}
	statusA2 = provider.ObjectVersion{ID: "secret/a", Version: "2"}
	statusB  = provider.ObjectVersion{ID: "secret/b"} // "" is a version
)

func TestPodStatus(t *testing.T) {
	t.Attr("conformance", "12.2/spcps-adopted")
	server := apiserver.Start(t)
	server.Apply(t, filepath.Join(repository, "api/crds/*.yaml"))
	server.ServiceAccount(t, "kube-system", "secrets-store-csi-driver", nil)
	t.Run("without rights", newStatusRig(t, server).withoutRights)
	denied := len(server.Forbidden(t, apiserver.User("kube-system", "secrets-store-csi-driver")))
	for _, rights := range []string{filepath.Join(repository, daemonRights), "testdata/rbac-upstream-1.6.0.yaml", "testdata/rbac-upstream-1.5.6.yaml"} {
		t.Run(filepath.Base(rights), func(t *testing.T) {
			server.Apply(t, rights)
			r := newStatusRig(t, server)
			t.Run("life", r.life)
			t.Run("names", r.names)
			t.Run("adoption", r.adoption)
			t.Run("upstream's writes", r.upstreamWrites)
			t.Run("a pod of the same name", r.successor)
			t.Run("outage", r.outage)
			if all := server.Forbidden(t, r.user); len(all) > denied {
				t.Errorf("a right is missing: %+v", all[denied:])
			}
		})
	}
}

func (r *statusRig) life(t *testing.T) {
	ns := r.server.Namespace(t)
	pod := r.pod(ns, "web")
	v := statusVolume(pod, "db", "v")
	r.record(v, true, statusB, statusA1)
	r.wantAsked("a first mount", map[string]int{"create": 1})
	name := "web-" + ns + "-db"
	got, _ := r.get(ns, name)
	if got.Labels["internal.secrets-store.csi.k8s.io/node-name"] != "node-1" || len(got.OwnerReferences) != 1 ||
		got.OwnerReferences[0] != (metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: "web", UID: pod.UID}) {
		t.Errorf("metadata %+v", got.ObjectMeta)
	}
	s := got.Status
	if s.PodName != "web" || s.SecretProviderClassName != "db" || !s.Mounted || s.TargetPath != v.Target ||
		fmt.Sprint(s.Objects) != "[{secret/a 1} {secret/b }]" {
		t.Errorf("status %+v", s)
	}
	if len(s.Conditions) != 1 || s.Conditions[0].Type != v1.UpToDate || s.Conditions[0].Status != "True" || s.Conditions[0].LastTransitionTime.IsZero() {
		t.Errorf("conditions %+v", s.Conditions)
	}

	r.record(v, false, statusA1, statusB)
	r.wantAsked("a refresh without change", map[string]int{})
	r.record(v, false, statusA2)
	r.wantAsked("a refresh with change", map[string]int{"patch": 1})
	r.fail(v)
	r.fail(v)
	r.wantAsked("two failures", map[string]int{"patch": 1})
	got, _ = r.get(ns, name)
	if c := got.Status.Conditions; len(c) != 1 || c[0].Status != "False" || c[0].Reason != "Denied" || c[0].Message != "reading a (grant it)" ||
		fmt.Sprint(got.Status.Objects) != "[{secret/a 2}]" {
		t.Errorf("status %+v", got.Status)
	}

	r.restart()
	r.fail(v)
	r.wantAsked("the same failure after a restart", map[string]int{"get": 1})
	r.record(v, false, statusA2)
	r.wantAsked("a success after a failure", map[string]int{"patch": 1})
	r.record(v, false)
	if got, _ = r.get(ns, name); got.Status.Objects != nil || got.Status.Conditions[0].Status != "True" {
		t.Errorf("status %+v", got.Status)
	}
}

func (r *statusRig) names(t *testing.T) {
	ns := r.server.Namespace(t)
	pod := r.pod(ns, "web")
	long := strings.Repeat("c", 200) + "." + strings.Repeat("c", 52)
	for _, v := range []*publish.Volume{statusVolume(pod, "db", "v"), statusVolume(pod, "db", "w"), statusVolume(pod, long, "x"),
		statusVolume(r.pod(ns, "a"), ns+"-b", "v"), statusVolume(r.pod(ns, "a-"+ns), "b", "v")} { // the last two have one plain name
		r.record(v, true, statusA1)
	}
	list, err := r.objects(ns, "v1").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 5 {
		t.Errorf("%d objects: %v", len(list.Items), err)
	}
}

func (r *statusRig) adoption(t *testing.T) {
	for _, version := range []string{"v1", "v1alpha1"} {
		ns := r.server.Namespace(t)
		pod := r.pod(ns, "web")
		v := statusVolume(pod, "db", "v")
		r.upstreamCreates(t, pod, v, version)
		_, before := r.get(ns, "web-"+ns+"-db")
		r.restart()
		r.asked()
		r.record(v, false, provider.ObjectVersion{ID: " secret/a ", Version: "1\n"})
		r.wantAsked("adopting what upstream 1.5.6 wrote", map[string]int{"get": 1})
		if _, after := r.get(ns, "web-"+ns+"-db"); after.GetResourceVersion() != before.GetResourceVersion() {
			t.Error("it was written all the same")
		}
		r.fail(v)
		r.wantAsked("a failure of it", map[string]int{"patch": 1})
	}
}

// upstreamCreates makes the object of a volume as upstream's driver does.
func (r *statusRig) upstreamCreates(t *testing.T, pod *corev1.Pod, v *publish.Volume, version string) {
	t.Helper()
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1.Group + "/" + version, "kind": "SecretProviderClassPodStatus",
		"metadata": map[string]any{"name": pod.Name + "-" + pod.Namespace + "-" + v.Class.Name, "namespace": pod.Namespace,
			"labels":          map[string]any{"internal.secrets-store.csi.k8s.io/node-name": "node-1"},
			"ownerReferences": []any{map[string]any{"apiVersion": "v1", "kind": "Pod", "name": pod.Name, "uid": string(pod.UID)}}},
		"status": map[string]any{"podName": pod.Name, "secretProviderClassName": v.Class.Name, "mounted": true, "targetPath": v.Target,
			"objects": []any{map[string]any{"id": "secret/a", "version": "1"}}},
	}}
	if _, err := r.objects(pod.Namespace, version).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// Upstream's driver takes an object of ours over by a whole update, without conditions; what we write next stands on that.
func (r *statusRig) upstreamWrites(t *testing.T) {
	ns := r.server.Namespace(t)
	v := statusVolume(r.pod(ns, "web"), "db", "v")
	r.record(v, true, statusA1)
	_, object := r.get(ns, "web-"+ns+"-db")
	status := object.Object["status"].(map[string]any)
	delete(status, "conditions")
	status["objects"] = []any{map[string]any{"id": "secret/a", "version": "9"}}
	if _, err := r.objects(ns, "v1").Update(t.Context(), object, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.asked()
	r.record(v, false, statusA2)
	r.wantAsked("a write after another's", map[string]int{"patch": 2, "get": 1})
	if got, _ := r.get(ns, "web-"+ns+"-db"); fmt.Sprint(got.Status.Objects) != "[{secret/a 2}]" || len(got.Status.Conditions) != 1 {
		t.Errorf("status %+v", got.Status)
	}
}

func (r *statusRig) successor(t *testing.T) {
	ns := r.server.Namespace(t)
	old := r.pod(ns, "web-0")
	v := statusVolume(old, "db", "v")
	r.record(v, true, statusA1)
	now := int64(0)
	if err := r.server.Client().Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(ns).
		Delete(t.Context(), old.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	pod := r.pod(ns, "web-0")
	next := statusVolume(pod, "db", "v")
	r.record(next, true, statusA1)
	r.asked()
	r.record(v, false, statusA2) // the old one has not been unmounted yet
	got, _ := r.get(ns, "web-0-"+ns+"-db")
	if got.OwnerReferences[0].UID != pod.UID || len(got.OwnerReferences) != 1 || got.Status.TargetPath != next.Target ||
		fmt.Sprint(got.Status.Objects) != "[{secret/a 1}]" {
		t.Errorf("object %+v", got)
	}
}

func (r *statusRig) outage(t *testing.T) {
	ns := r.server.Namespace(t)
	v := statusVolume(r.pod(ns, "web"), "db", "v")
	background(t, r.Run)
	r.server.Refuse()
	err := r.RecordStatus(t.Context(), v, &publish.Result{Fetched: true, First: true, Versions: []provider.ObjectVersion{statusA1}})
	if rerr := r.server.Restore(); rerr != nil {
		t.Fatal(rerr)
	}
	if provider.KindOf(err) != provider.Unavailable {
		t.Errorf("got %v", err)
	}
	eventually(t, "the status to be written", func() bool {
		_, err := r.objects(ns, "v1").Get(t.Context(), "web-"+ns+"-db", metav1.GetOptions{})
		return err == nil
	})
}

// With upstream's definition, which has no conditions, everything else works, and that is said once.
func TestPodStatusWithoutConditions(t *testing.T) {
	t.Attr("conformance", "12.1/without-conditions")
	server := apiserver.Start(t)
	server.Apply(t, filepath.Join(repository, daemonRights))
	text, err := os.ReadFile(filepath.Join(repository, statusDefinition))
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
		t.Fatalf("conditions are still in the definition (%v)", err)
	}
	server.ApplyText(t, string(text))

	r := newStatusRig(t, server)
	ns := server.Namespace(t)
	v, w := statusVolume(r.pod(ns, "web"), "db", "v"), statusVolume(r.pod(ns, "web2"), "db", "v")
	r.record(v, true, statusA1)
	r.record(w, true, statusA1)
	r.fail(v)
	r.fail(w)
	r.record(v, false, statusA1)
	r.wantAsked("two mounts and two failures", map[string]int{"create": 2})
	r.record(v, false, statusA2)
	if got, _ := r.get(ns, "web-"+ns+"-db"); fmt.Sprint(got.Status.Objects) != "[{secret/a 2}]" || got.Status.Conditions != nil {
		t.Errorf("status %+v", got.Status)
	}
	if n := r.logs.count("has no status.conditions"); n != 1 {
		t.Errorf("it was said %d times", n)
	}
}

// withoutRights is the time until somebody applies them.
func (r *statusRig) withoutRights(t *testing.T) {
	ns := r.server.Namespace(t)
	v := statusVolume(r.pod(ns, "web"), "db", "v")
	err := r.RecordStatus(t.Context(), v, &publish.Result{Fetched: true, First: true})
	var said *provider.Error
	if !errors.As(err, &said) || said.Kind != provider.Denied || !strings.Contains(said.Remedy, "secretproviderclasses-role") {
		t.Fatalf("got %v", err)
	}
	background(t, r.Run)
	r.server.Apply(t, filepath.Join(repository, daemonRights))
	eventually(t, "the status to be written", func() bool {
		_, err := r.objects(ns, "v1").Get(t.Context(), "web-"+ns+"-db", metav1.GetOptions{})
		return err == nil
	})
}
