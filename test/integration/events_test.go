//go:build integration && linux

package integration

import (
	"errors"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keymount/internal/events"
	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/volume"
	"keymount/test/integration/apiserver"
)

func eventsOn(t *testing.T, server *apiserver.Server, pod *corev1.Pod) []corev1.Event {
	t.Helper()
	var out corev1.EventList
	got, err := server.Client().Resource(corev1.SchemeGroupVersion.WithResource("events")).Namespace(pod.Namespace).
		List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(pod.UID)})
	if err == nil {
		err = runtime.DefaultUnstructuredConverter.FromUnstructured(got.UnstructuredContent(), &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Items
}

func TestEvents(t *testing.T) {
	server := apiserver.Start(t)
	server.ServiceAccount(t, "kube-system", "secrets-store-csi-driver", nil)
	ns := server.Namespace(t)
	pod := server.Pod(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"}})
	v := statusVolume(pod, "db", "v")
	said := &logs{}
	r, err := events.New(events.Config{NodeID: "node-1", Log: said.logger(),
		API: server.ConfigFor(server.Token(t, "kube-system", "secrets-store-csi-driver").Token)})
	if err != nil {
		t.Fatal(err)
	}
	background(t, r.Run)
	list := func() []corev1.Event { return eventsOn(t, server, pod) }
	find := func(reason string) *corev1.Event {
		for _, e := range list() {
			if e.Reason == reason {
				return &e
			}
		}
		return nil
	}
	denied := &provider.Error{Kind: provider.Denied, Object: "secret/a", Message: "reading secret/a: 100%d", Remedy: "grant it"}

	r.Observe(t.Context(), publish.Outcome{Volume: v, Err: denied})
	eventually(t, "the missing right to be said", func() bool { return said.count("create and patch on events") == 1 && r.Lost() == 1 })

	server.Apply(t, filepath.Join(repository, daemonRights))
	r.Observe(t.Context(), publish.Outcome{Volume: v, Result: publish.Result{Fetched: true, First: true}})
	r.Observe(t.Context(), publish.Outcome{Volume: v, Err: denied})
	eventually(t, "the failed mount", func() bool { return find(events.FailedToMountSecrets) != nil })
	e := find(events.FailedToMountSecrets)
	if e.Message != "SecretProviderClass db: reading secret/a: 100%d (grant it)" || e.Type != "Warning" || e.Count != 1 ||
		e.InvolvedObject.Name != "web" || e.Source.Component != events.Component || e.Source.Host != "node-1" || e.FirstTimestamp.IsZero() {
		t.Errorf("Event %+v", e)
	}

	r.Observe(t.Context(), publish.Outcome{Volume: v, Held: true, Err: denied})
	r.Observe(t.Context(), publish.Outcome{Volume: v, Held: true, Result: publish.Result{Fetched: true, Unfinished: []error{errors.New("x")}}})
	for _, file := range []string{"one", "two"} { // the second is the first once more
		r.Observe(t.Context(), publish.Outcome{Volume: v, Held: true, Result: publish.Result{Fetched: true, Change: volume.Change{Updated: []string{file}}}})
	}
	eventually(t, "both rotations", func() bool { e := find(events.MountRotationComplete); return e != nil && e.Count == 2 })
	if e := find(events.MountRotationComplete); e.Message != "SecretProviderClass db: updated two" || e.Type != "Normal" {
		t.Errorf("Event %+v", e)
	}
	if n := len(list()); n != 4 || find(events.MountRotationFailed) == nil || find(events.MountUnfinished) == nil {
		t.Errorf("%d Events: %+v", n, list())
	}
	if said.count("written again") != 1 {
		t.Error("it is not said that the right is there")
	}
}
