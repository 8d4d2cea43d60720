//go:build integration && linux

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"keymount/internal/classes"
	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/secretsync"
	"keymount/test/integration/apiserver"
)

// syncing are the rights of synced Secrets, as the chart gives them to the driver, for another account: that of the driver has none in
// these tests, which others of them show.
func syncing(t testing.TB, namespace, account string) {
	t.Helper()
	manifest, err := os.ReadFile(filepath.Join(repository, "deploy/rbac/rbac-secretprovidersyncing.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	role, _, _ := strings.Cut(string(manifest), "\n---\n")
	api.ApplyText(t, role)
	if namespace != "kube-system" {
		api.ServiceAccount(t, namespace, account, nil)
	}
	api.ApplyText(t, fmt.Sprintf(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: syncing-%[1]s-%[2]s
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: secretprovidersyncing-role
subjects:
- kind: ServiceAccount
  name: %[2]s
  namespace: %[1]s
`, namespace, account))
}

// A secretRig is a node that syncs Secrets, with the rights of the daemon, and what an administrator sees. What it knows of classes and
// volumes is in memory: Get and Read are those of the parts that it has beside it.
type secretRig struct {
	*testing.T
	*secretsync.Syncer
	ns, user string
	seen     int // requests
	told     chan publish.SecretOutcome

	mu      sync.Mutex
	classes map[string]*classes.Class
	disk    map[string]map[string]string // contents by target and path
	// meddle, if set, is called before a request is sent, with the request; an answer is taken for the API server's.
	meddle func(*http.Request) *http.Response
}

func newSecretRig(t *testing.T, change ...func(*secretsync.Config)) *secretRig {
	t.Helper()
	ns := api.Namespace(t)
	syncing(t, ns, "syncer")
	r := &secretRig{T: t, ns: ns, user: apiserver.User(ns, "syncer"), told: make(chan publish.SecretOutcome, 1000),
		classes: map[string]*classes.Class{}, disk: map[string]map[string]string{}}
	r.Syncer = r.node(change...)
	r.asked()
	return r
}

// node returns one more node of the same cluster.
func (r *secretRig) node(change ...func(*secretsync.Config)) *secretsync.Syncer {
	r.Helper()
	cfg := secretsync.Config{API: api.ConfigFor(api.Token(r, r.ns, "syncer").Token), Classes: r, Content: r, Observer: r, NodeID: "node-1"}
	cfg.API.Wrap(func(next http.RoundTripper) http.RoundTripper { return meddler{r, next} })
	for _, c := range change {
		c(&cfg)
	}
	s, err := secretsync.New(cfg)
	if err != nil {
		r.Fatal(err)
	}
	return s
}

type meddler struct {
	*secretRig
	next http.RoundTripper
}

func (m meddler) RoundTrip(req *http.Request) (*http.Response, error) {
	m.mu.Lock()
	meddle := m.meddle
	m.mu.Unlock()
	if meddle != nil {
		if answer := meddle(req); answer != nil {
			return answer, nil
		}
	}
	return m.next.RoundTrip(req)
}

func (r *secretRig) meddleWith(f func(*http.Request) *http.Response) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.meddle = f
}

func (r *secretRig) Get(_ context.Context, namespace, name string) (*classes.Class, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.classes[name]; c != nil && namespace == r.ns {
		return c, nil
	}
	return nil, &provider.Error{Kind: provider.NotFound, Message: "no class " + name}
}

func (r *secretRig) Read(target string, paths []string, _ int) (map[string]provider.Contents, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]provider.Contents{}
	for _, path := range paths {
		if text, ok := r.disk[target][path]; ok {
			out[path] = provider.Contents(text)
		}
	}
	return out, nil
}

func (r *secretRig) ObserveSecret(_ context.Context, o publish.SecretOutcome) { r.told <- o }

// class sets what a class asks for, in its next generation.
func (r *secretRig) class(name string, secrets ...publish.SecretObject) {
	r.mu.Lock()
	defer r.mu.Unlock()
	generation := int64(1)
	if before := r.classes[name]; before != nil {
		generation = before.Generation + 1
	}
	r.classes[name] = &classes.Class{Namespace: r.ns, Name: name, UID: "uid-of-" + name, Generation: generation, Secrets: secrets}
}

func (r *secretRig) noClass(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.classes, name)
}

// pod makes a pod that a ReplicaSet of this name owns; "" for one that nobody owns.
func (r *secretRig) pod(name, replicaSet string) *corev1.Pod {
	r.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: r.ns, Name: name}}
	if replicaSet != "" {
		yes := true
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: replicaSet, UID: uidOf(replicaSet),
			Controller: &yes, BlockOwnerDeletion: &yes}}
	}
	return api.Pod(r, pod)
}

func uidOf(replicaSet string) types.UID { return types.UID("uid-of-" + replicaSet) }

// volume is the volume of a pod with a class, as it now is.
func (r *secretRig) volume(pod *corev1.Pod, class string) *publish.Volume {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := &publish.Volume{ID: "csi-" + string(pod.UID) + class, Target: "/target/" + pod.Name + "/" + class, Provider: "azure",
		Class: publish.Class{Namespace: r.ns, Name: class}}
	v.Request.Pod = provider.Pod{Namespace: r.ns, Name: pod.Name, UID: string(pod.UID)}
	if c := r.classes[class]; c != nil {
		v.ClassUID, v.ClassGeneration, v.Secrets = c.UID, c.Generation, c.Secrets
	}
	return v
}

// fetched has the volume hold files, as of a time, and what is to be synced synced.
func (r *secretRig) fetched(v *publish.Volume, asOf time.Time, files map[string]string) {
	r.Helper()
	r.fetchedOn(r.Syncer, v, asOf, files)
}

func (r *secretRig) fetchedOn(s *secretsync.Syncer, v *publish.Volume, asOf time.Time, files map[string]string) {
	r.Helper()
	b := &provider.Bundle{}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		b.Files = append(b.Files, provider.File{Path: path, Mode: 0o644, Contents: provider.Contents(files[path])})
	}
	r.mu.Lock()
	r.disk[v.Target] = files
	r.mu.Unlock()
	s.SyncSecrets(r.Context(), v, b, asOf)
}

// outcome returns the next one, and wantNone demands that none was told.
func (r *secretRig) outcome() publish.SecretOutcome {
	r.Helper()
	select {
	case o := <-r.told:
		return o
	case <-time.After(60 * time.Second):
		r.Fatal("nothing is told")
		panic("unreachable")
	}
}

func (r *secretRig) wantNone() {
	r.Helper()
	select {
	case o := <-r.told:
		r.Fatalf("told %+v, %v", o, o.Err)
	default:
	}
}

// wantDone demands that the next outcome is this success.
func (r *secretRig) wantDone(action publish.SecretAction) {
	r.Helper()
	if o := r.outcome(); o.Err != nil || o.Action != action {
		r.Fatalf("got action %v and %v, want action %v", o.Action, o.Err, action)
	}
}

// wantFailed demands that the next outcome is a failure of this kind that says this.
func (r *secretRig) wantFailed(kind provider.Kind, texts ...string) publish.SecretOutcome {
	r.Helper()
	o := r.outcome()
	if o.Err == nil || o.Err.Kind != kind {
		r.Fatalf("got %+v, %v, want a failure of kind %v", o, o.Err, kind)
	}
	for _, text := range texts {
		if !strings.Contains(o.Err.Error(), text) {
			r.Errorf("%q does not say %q", o.Err.Error(), text)
		}
	}
	return o
}

// asked counts the node's requests since the last call, by what is asked of which resource; reads of metadata apart.
func (r *secretRig) asked() map[string]int {
	r.Helper()
	all := api.Requests(r, r.user)
	counts := apiserver.Counts(all[r.seen:])
	r.seen = len(all)
	return counts
}

func (r *secretRig) wantAsked(want map[string]int) {
	r.Helper()
	if got := r.asked(); !maps.Equal(got, want) {
		r.Errorf("asked %v, want %v", got, want)
	}
}

func (r *secretRig) secrets() dynamic.ResourceInterface {
	return api.Client().Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(r.ns)
}

// secret returns a Secret, nil if there is none.
func (r *secretRig) secret(name string) *corev1.Secret {
	r.Helper()
	object, err := r.secrets().Get(r.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		r.Fatal(err)
	}
	s := &corev1.Secret{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, s); err != nil {
		r.Fatal(err)
	}
	return s
}

// put makes a Secret as somebody else does.
func (r *secretRig) put(s *corev1.Secret) {
	r.Helper()
	s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	s.Namespace = r.ns
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(s)
	if err == nil {
		_, err = r.secrets().Create(r.Context(), &unstructured.Unstructured{Object: content}, metav1.CreateOptions{})
	}
	if err != nil {
		r.Fatal(err)
	}
}

// patch changes a Secret as somebody else does.
func (r *secretRig) patch(name string, change map[string]any) {
	r.Helper()
	body, err := json.Marshal(change)
	if err == nil {
		_, err = r.secrets().Patch(r.Context(), name, types.MergePatchType, body, metav1.PatchOptions{})
	}
	if err != nil {
		r.Fatal(err)
	}
}

func (r *secretRig) remove(name string) {
	r.Helper()
	if err := r.secrets().Delete(r.Context(), name, metav1.DeleteOptions{}); err != nil {
		r.Fatal(err)
	}
}

// wantData demands that a Secret holds exactly this.
func (r *secretRig) wantData(name string, want map[string]string) *corev1.Secret {
	r.Helper()
	s := r.secret(name)
	if s == nil {
		r.Fatalf("there is no Secret %s", name)
	}
	got := map[string]string{}
	for key, value := range s.Data {
		got[key] = string(value)
	}
	if !maps.Equal(got, want) {
		r.Errorf("Secret %s holds %v, want %v", name, got, want)
	}
	return s
}

// wantOwners demands that exactly these own the Secret, by uid.
func (r *secretRig) wantOwners(name string, want ...types.UID) {
	r.Helper()
	var got []types.UID
	for _, o := range r.secret(name).OwnerReferences {
		got = append(got, o.UID)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.Errorf("Secret %s is owned by %v, want %v", name, got, want)
	}
}

// opaque is a Secret with one key per file, of the file's name.
func opaque(name string, paths ...string) publish.SecretObject {
	o := publish.SecretObject{Name: name, Type: "Opaque"}
	for _, path := range paths {
		o.Data = append(o.Data, publish.SecretKey{Key: path, File: path})
	}
	return o
}
