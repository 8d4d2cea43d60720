//go:build integration && linux

package integration

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/secretsync"
)

const managed = "secrets-store.csi.k8s.io/managed"

// The first pod of a class makes the Secret, whole and with its owners, in three requests; the next one on the node only asks for its own
// owners. What is as it was costs nothing.
func TestASecretIsMadeOnce(t *testing.T) {
	t.Attr("conformance", "12.7/data-labels-annotations-type")
	t.Attr("conformance", "12.7/owners")
	t.Attr("conformance", "10.1/3-unchanged-costs-nothing")
	r := newSecretRig(t)
	object := opaque("db", "user", "nested/password")
	object.Type, object.Data[1].Key = "example.com/db", "password"
	object.Labels = map[string]string{"app": "shop", managed: "false"}
	object.Annotations = map[string]string{"team": "a", "keymount.dev/synced": "forged"}
	r.class("c", object)
	web1 := r.volume(r.pod("web-1", "web"), "c")
	files := map[string]string{"user": "root", "nested/password": "hunter2\n", "other": "not asked for"}
	r.fetched(web1, time.Now(), files)
	r.wantDone(publish.SecretCreated)
	r.wantAsked(map[string]int{"get pods": 1, "get secrets": 1, "create secrets": 1})

	s := r.wantData("db", map[string]string{"user": "root", "password": "hunter2\n"})
	if s.Type != "example.com/db" || s.Labels["app"] != "shop" || s.Labels[managed] != "true" || s.Annotations["team"] != "a" ||
		!strings.Contains(s.Annotations[secretsync.Note], `"class":"c"`) {
		t.Errorf("made %+v", s.ObjectMeta)
	}
	r.wantOwners("db", uidOf("web"))
	if o := s.OwnerReferences[0]; o.Controller != nil || o.BlockOwnerDeletion != nil || o.Kind != "ReplicaSet" || o.Name != "web" {
		t.Errorf("owned by %+v", o)
	}

	r.fetched(r.volume(r.pod("web-2", "web"), "c"), time.Now(), files)
	r.wantDone(publish.SecretKept)
	r.wantAsked(map[string]int{"get pods": 1})
	for range 3 {
		r.fetched(web1, time.Now(), files)
	}
	r.wantNone()
	r.wantAsked(map[string]int{})
	if after := r.secret("db"); after.ResourceVersion != s.ResourceVersion {
		t.Error("the Secret was written again")
	}
}

// Fifty pods that start together are one Secret.
func TestPodsThatStartTogetherMakeOneSecret(t *testing.T) {
	r := newSecretRig(t)
	r.class("c", opaque("db", "f"))
	const pods = 50
	var volumes []*publish.Volume
	for i := range pods {
		volumes = append(volumes, r.volume(r.pod(fmt.Sprintf("web-%d", i), "web"), "c"))
	}
	r.asked()
	var wg sync.WaitGroup
	for _, v := range volumes {
		wg.Go(func() { r.fetched(v, time.Now(), map[string]string{"f": "1"}) })
	}
	wg.Wait()
	created := 0
	for range pods {
		if o := r.outcome(); o.Err != nil {
			t.Fatal(o.Err)
		} else if o.Action == publish.SecretCreated {
			created++
		}
	}
	if created != 1 {
		t.Errorf("created %d times", created)
	}
	r.wantAsked(map[string]int{"get pods": pods, "get secrets": 1, "create secrets": 1})
}

// A container whose environment refers to a Secret starts at the first try: the Secret is there when the volume is.
func TestSecretsAreThereInTime(t *testing.T) {
	t.Attr("conformance", "10.1/19-secrets-are-there-in-time")
	r := newSecretRig(t)
	r.class("c", opaque("one", "f"), opaque("two", "f"), opaque("three", "f"))
	r.fetched(r.volume(r.pod("web-1", "web"), "c"), time.Now(), map[string]string{"f": "1"})
	for _, name := range []string{"one", "two", "three"} {
		r.wantData(name, map[string]string{"f": "1"})
	}
}

// A pod that nobody owns owns its Secret.
func TestABarePodOwnsItsSecret(t *testing.T) {
	t.Attr("conformance", "12.7/owners")
	r := newSecretRig(t)
	r.class("c", opaque("db", "f"))
	pod := r.pod("bare", "")
	r.fetched(r.volume(pod, "c"), time.Now(), map[string]string{"f": "1"})
	r.wantDone(publish.SecretCreated)
	r.wantOwners("db", pod.UID)
	if o := r.secret("db").OwnerReferences[0]; o.Kind != "Pod" || o.APIVersion != "v1" || o.Name != "bare" {
		t.Errorf("owned by %+v", o)
	}
}

// An update changes what is ours, and nothing else.
func TestAnUpdateKeepsWhatIsOthers(t *testing.T) {
	t.Attr("conformance", "10.1/4-owners-are-kept")
	t.Attr("conformance", "12.7/others-stay")
	r := newSecretRig(t)
	object := opaque("db", "a", "b")
	object.Labels, object.Annotations = map[string]string{"l1": "1", "l2": "1"}, map[string]string{"a1": "1", "a2": "1"}
	r.class("c", object)
	v := r.volume(r.pod("web-1", "web"), "c")
	r.fetched(v, time.Now(), map[string]string{"a": "1", "b": "1"})
	r.wantDone(publish.SecretCreated)
	yes := true
	r.patch("db", map[string]any{
		"metadata": map[string]any{"labels": map[string]any{"theirs": "l"}, "annotations": map[string]any{"theirs": "a"},
			"ownerReferences": []any{metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "theirs", UID: "uid-of-theirs", BlockOwnerDeletion: &yes},
				metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "of-an-earlier-one"}}},
		"data": map[string]any{"theirs": "ZGF0YQ=="},
	})
	r.asked()

	object = opaque("db", "b", "c")
	object.Labels, object.Annotations = map[string]string{"l2": "2"}, map[string]string{"a2": "2"}
	r.class("c", object)
	r.fetched(r.volume(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-1", UID: types.UID(v.Request.Pod.UID)}}, "c"), time.Now(), map[string]string{"b": "2", "c": "2"})
	r.wantDone(publish.SecretUpdated)
	r.wantAsked(map[string]int{"get secrets": 1, "patch secrets": 1})
	s := r.wantData("db", map[string]string{"b": "2", "c": "2", "theirs": "data"})
	if _, there := s.Labels["l1"]; there || s.Labels["l2"] != "2" || s.Labels["theirs"] != "l" || s.Labels[managed] != "true" {
		t.Errorf("labels %v", s.Labels)
	}
	if _, there := s.Annotations["a1"]; there || s.Annotations["a2"] != "2" || s.Annotations["theirs"] != "a" {
		t.Errorf("annotations %v", s.Annotations)
	}
	// One of the same name with another uid is another owner.
	r.wantOwners("db", "uid-of-theirs", "of-an-earlier-one", uidOf("web"))
	for _, o := range s.OwnerReferences {
		if o.UID == "uid-of-theirs" && (o.BlockOwnerDeletion == nil || !*o.BlockOwnerDeletion) {
			t.Errorf("the others' owner is now %+v", o)
		}
	}
}

// What is newer is not overwritten with what is older, however that comes to be: a node whose class is an earlier one, a fetch that was
// slow, a try that is repeated.
func TestOlderContentNeverOverwritesNewer(t *testing.T) {
	t.Attr("conformance", "10.1/5-older-never-overwrites-newer")
	now := time.Now()
	for _, tc := range []struct {
		name    string
		change  func(r *secretRig, other *publish.Volume) // of the second node's volume, before its fetch
		asOf    time.Time
		written bool
	}{
		{"a later fetch", nil, now.Add(time.Millisecond), true},
		{"an earlier fetch", nil, now.Add(-time.Second), false},
		{"a later fetch by an earlier class", func(_ *secretRig, v *publish.Volume) { v.ClassGeneration-- }, now.Add(time.Minute), false},
		{"an earlier fetch by a later class", func(_ *secretRig, v *publish.Volume) { v.ClassGeneration++ }, now.Add(-time.Second), true},
		{"an earlier fetch by a class that was made anew", func(_ *secretRig, v *publish.Volume) { v.ClassUID, v.ClassGeneration = "another", 1 }, now.Add(-time.Second), false},
		{"a later fetch by a class that was made anew", func(_ *secretRig, v *publish.Volume) { v.ClassUID, v.ClassGeneration = "another", 1 }, now.Add(time.Second), true},
		{"a clock that was hours ahead", func(r *secretRig, _ *publish.Volume) {
			note := r.secret("db").Annotations[secretsync.Note]
			r.patch("db", map[string]any{"metadata": map[string]any{"annotations": map[string]any{secretsync.Note: strings.Replace(note, `"asOf":"20`, `"asOf":"21`, 1)}}})
		}, now.Add(time.Second), true},
		{"a note that is none", func(r *secretRig, _ *publish.Volume) {
			r.patch("db", map[string]any{"metadata": map[string]any{"annotations": map[string]any{secretsync.Note: `{"asOf":7}`}}})
		}, now.Add(-time.Hour), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newSecretRig(t)
			r.class("c", opaque("db", "f"))
			r.class("c", opaque("db", "f"))
			r.fetched(r.volume(r.pod("web-1", "web"), "c"), now, map[string]string{"f": "first"})
			r.wantDone(publish.SecretCreated)
			second, v := r.node(), r.volume(r.pod("web-2", "web"), "c")
			if tc.change != nil {
				tc.change(r, v)
			}
			r.fetchedOn(second, v, tc.asOf, map[string]string{"f": "second"})
			if tc.written {
				r.wantDone(publish.SecretUpdated)
				r.wantData("db", map[string]string{"f": "second"})
				return
			}
			r.wantDone(publish.SecretKept)
			r.wantData("db", map[string]string{"f": "first"})
		})
	}
}

// A node that had to leave newer content alone looks again at its next fetch, although what it fetches is as before: the other node may
// have had a clock that is ahead.
func TestWhatWasOvertakenIsLookedAtAgain(t *testing.T) {
	r := newSecretRig(t)
	r.class("c", opaque("db", "f"))
	now := time.Now()
	r.fetched(r.volume(r.pod("web-1", "web"), "c"), now, map[string]string{"f": "old, by a clock that is ahead"})
	r.wantDone(publish.SecretCreated)
	second, v := r.node(), r.volume(r.pod("web-2", "web"), "c")
	r.fetchedOn(second, v, now.Add(-time.Second), map[string]string{"f": "new"})
	r.wantDone(publish.SecretKept)
	r.fetchedOn(second, v, now.Add(time.Second), map[string]string{"f": "new"})
	r.wantDone(publish.SecretUpdated)
	r.wantData("db", map[string]string{"f": "new"})
}

// Two pods whose attributes differ give the Secret different contents. The last change counts; they do not undo one another's for ever.
func TestPodsThatDifferDoNotFlipASecret(t *testing.T) {
	t.Attr("conformance", "10.1/5-no-flip-flop")
	r := newSecretRig(t)
	r.class("c", opaque("db", "f"))
	one, two := r.volume(r.pod("web-1", "web"), "c"), r.volume(r.pod("web-2", "web"), "c")
	r.fetched(one, time.Now(), map[string]string{"f": "1"})
	r.wantDone(publish.SecretCreated)
	r.fetched(two, time.Now(), map[string]string{"f": "2"})
	r.wantDone(publish.SecretUpdated)
	r.asked()
	for range 3 {
		r.fetched(one, time.Now(), map[string]string{"f": "1"})
		r.fetched(two, time.Now(), map[string]string{"f": "2"})
	}
	r.wantNone()
	r.wantAsked(map[string]int{})
	r.wantData("db", map[string]string{"f": "2"})
}

// Somebody who writes between the read and the write is not overwritten: the Secret is read again.
func TestWritesAreConditional(t *testing.T) {
	t.Attr("conformance", "10.1/5-writes-are-conditional")
	r := newSecretRig(t)
	r.class("c", opaque("db", "f"))
	v := r.volume(r.pod("web-1", "web"), "c")
	r.fetched(v, time.Now(), map[string]string{"f": "1"})
	r.wantDone(publish.SecretCreated)
	var once sync.Once
	r.meddleWith(func(req *http.Request) *http.Response {
		if req.Method == http.MethodPatch {
			once.Do(func() { r.patch("db", map[string]any{"data": map[string]any{"theirs": "MQ=="}}) })
		}
		return nil
	})
	r.fetched(v, time.Now(), map[string]string{"f": "2"})
	r.wantDone(publish.SecretUpdated)
	r.wantData("db", map[string]string{"f": "2", "theirs": "1"})

	var all int
	r.meddleWith(func(req *http.Request) *http.Response {
		if req.Method == http.MethodPatch {
			all++
			r.patch("db", map[string]any{"metadata": map[string]any{"labels": map[string]any{"theirs": fmt.Sprint(all)}}})
		}
		return nil
	})
	r.fetched(v, time.Now(), map[string]string{"f": "3"})
	o := r.wantFailed(provider.Unavailable, "others write the Secret all the time", r.ns+"/db")
	if !o.Exists {
		t.Error("the Secret is there, with the content of before")
	}
}

// What the API server says of contents is not repeated: it quotes them in part.
func TestRefusalsTellNothingOfContents(t *testing.T) {
	t.Attr("conformance", "10.3/refusals-tell-no-content")
	r := newSecretRig(t)
	object := opaque("docker", "f")
	object.Type, object.Data[0].Key = "kubernetes.io/dockerconfigjson", ".dockerconfigjson"
	r.class("c", object)
	v := r.volume(r.pod("web-1", "web"), "c")
	r.fetched(v, time.Now(), map[string]string{"f": "zhunter2"})
	o := r.wantFailed(provider.Invalid, "data[.dockerconfigjson]", "kubernetes.io/dockerconfigjson")
	if strings.Contains(o.Err.Error(), "'z'") || o.Exists {
		t.Errorf("told %q", o.Err)
	}

	// An admission webhook that denies says what it likes.
	r.meddleWith(func(req *http.Request) *http.Response {
		if req.Method != http.MethodPost {
			return nil
		}
		return answer(http.StatusForbidden, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,
			"message":"admission webhook denied: Secret with value hunter2hunter2 is weak"}`)
	})
	r.class("c", opaque("weak", "f"))
	r.fetched(r.volume(r.pod("web-2", "web"), "c"), time.Now(), map[string]string{"f": "hunter2hunter2"})
	if o := r.wantFailed(provider.Denied, "repeat what is in it"); strings.Contains(o.Err.Error(), "hunter2") {
		t.Errorf("told %q", o.Err)
	}
}

func answer(code int, body string) *http.Response {
	return &http.Response{StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(body))}
}
