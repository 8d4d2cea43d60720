//go:build integration && linux

package integration

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/secretsync"
)

// Secrets that are not the class's to write stay as they are, and the pod is told why.
func TestSecretsOfOthersAreLeftAlone(t *testing.T) {
	t.Attr("conformance", "10.1/6-unmanaged-secrets-stay")
	t.Attr("conformance", "10.3/class-author-overwrites-no-secret")
	ours := func() *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "db", Labels: map[string]string{managed: "true"}}, Type: "Opaque", Data: map[string][]byte{"f": []byte("old")}}
	}
	yes := true
	for _, tc := range []struct {
		name   string
		change func(*corev1.Secret)
		texts  []string
		exists bool
	}{
		{"not managed", func(s *corev1.Secret) { s.Labels = nil }, []string{"no SecretProviderClass makes", managed + "=true"}, false},
		{"marked otherwise", func(s *corev1.Secret) { s.Labels[managed] = "yes" }, []string{"no SecretProviderClass makes"}, false},
		{"of another class", func(s *corev1.Secret) { s.Annotations = map[string]string{secretsync.Note: `{"class":"other"}`} },
			[]string{"SecretProviderClass other makes the Secret as well", "another secretName"}, false},
		{"of another type, with the same content", func(s *corev1.Secret) { s.Type, s.Data["f"] = "example.com/x", []byte("new") },
			[]string{"has the type example.com/x"}, true},
		{"of another type", func(s *corev1.Secret) { s.Type = "example.com/x" }, []string{"has the type example.com/x", "asks for Opaque", "delete the Secret"}, true},
		{"immutable", func(s *corev1.Secret) { s.Immutable = &yes }, []string{"is immutable", "delete the Secret"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newSecretRig(t)
			r.class("c", opaque("db", "f"))
			r.class("other", opaque("db", "f"))
			s := ours()
			tc.change(s)
			r.put(s)
			before := r.secret("db")
			r.fetched(r.volume(r.pod("web-1", "web"), "c"), time.Now(), map[string]string{"f": "new"})
			if o := r.wantFailed(provider.Invalid, append(tc.texts, r.ns+"/db")...); o.Exists != tc.exists {
				t.Errorf("exists: %v", o.Exists)
			}
			if after := r.secret("db"); after.ResourceVersion != before.ResourceVersion {
				t.Errorf("it is now %+v", after)
			}
		})
	}
}

// What looks like a conflict is none: the other class is gone, or makes the Secret no longer, or the Secret was made by upstream's driver.
func TestSecretsAreTakenOver(t *testing.T) {
	t.Attr("conformance", "12.7/secrets-of-upstream-are-taken-over")
	for _, tc := range []struct {
		name  string
		note  string
		other func(*secretRig)
	}{
		{"made by upstream's driver", "", nil},
		{"of a class that is gone", `{"class":"other","uid":"x","generation":9,"asOf":"2020-01-01T00:00:00Z","keys":["gone"]}`, nil},
		{"of a class that makes another", `{"class":"other","uid":"x","generation":9,"asOf":"2020-01-01T00:00:00Z","keys":["gone"]}`,
			func(r *secretRig) { r.class("other", opaque("another", "f")) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newSecretRig(t)
			r.class("c", opaque("db", "f"))
			if tc.other != nil {
				tc.other(r)
			}
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "db", Labels: map[string]string{managed: "true"}, Annotations: map[string]string{}},
				Type: "Opaque", Data: map[string][]byte{"f": []byte("old")}}
			if tc.note != "" {
				s.Annotations[secretsync.Note] = tc.note
				s.Data["gone"] = []byte("of the other class")
			}
			r.put(s)
			r.fetched(r.volume(r.pod("web-1", "web"), "c"), time.Now(), map[string]string{"f": "new"})
			r.wantDone(publish.SecretUpdated)
			r.wantData("db", map[string]string{"f": "new"})
			r.wantOwners("db", uidOf("web"))
		})
	}
}

// What an author can get wrong is told in his terms, before the API server is asked for anything.
func TestObjectsThatCannotBeMade(t *testing.T) {
	t.Attr("conformance", "12.6/failed-to-create-secret-texts")
	for _, tc := range []struct {
		name   string
		change func(*publish.SecretObject)
		text   string
	}{
		{"no name", func(o *publish.SecretObject) { o.Name = "" }, "secret name is empty"},
		{"no possible name", func(o *publish.SecretObject) { o.Name = "../db" }, "../db is no name of a Secret"},
		{"no data", func(o *publish.SecretObject) { o.Data = nil }, "data is empty"},
		{"no object name", func(o *publish.SecretObject) { o.Data[0].File = "" }, "object name in secretObjects.data is empty"},
		{"no key", func(o *publish.SecretObject) { o.Data[0].Key = "" }, "key in secretObjects.data is empty"},
		{"no possible key", func(o *publish.SecretObject) { o.Data[0].Key = "a/b" }, "a/b is no key of a Secret"},
		{"one key twice", func(o *publish.SecretObject) { o.Data = append(o.Data, o.Data[0]) }, "key f stands twice"},
		{"a file that is not there", func(o *publish.SecretObject) { o.Data[0].File = "typo" }, "file matching objectName typo not found in the pod"},
		{"tokens of any account", func(o *publish.SecretObject) { o.Type = "kubernetes.io/service-account-token" }, "are not made"},
		{"another key in a TLS Secret", func(o *publish.SecretObject) { o.Type = "kubernetes.io/tls" }, "has the keys tls.crt and tls.key, not f"},
		{"half a TLS Secret", func(o *publish.SecretObject) { o.Type, o.Data[0].Key = "kubernetes.io/tls", "tls.crt" }, "both of them"},
		{"no certificate", func(o *publish.SecretObject) {
			o.Type, o.Data = "kubernetes.io/tls", []publish.SecretKey{{Key: "tls.crt", File: "f"}, {Key: "tls.key", File: "f"}}
		}, "making tls.crt from file f: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "tokens of any account" {
				t.Attr("conformance", "10.3/no-service-account-tokens")
			}
			r := newSecretRig(t)
			object := opaque("db", "f")
			tc.change(&object)
			r.class("c", object, opaque("good", "f"))
			v := r.volume(r.pod("web-1", "web"), "c")
			r.fetched(v, time.Now(), map[string]string{"f": "hunter2"})
			var failed, made publish.SecretOutcome
			for range 2 { // in any order
				if o := r.outcome(); o.Err != nil {
					failed = o
				} else {
					made = o
				}
			}
			if made.Secret != "good" || made.Action != publish.SecretCreated {
				t.Errorf("the class's other Secret: %+v", made)
			}
			if failed.Err == nil || failed.Err.Kind != provider.Invalid || !strings.Contains(failed.Err.Error(), tc.text) || failed.Err.Remedy == "" ||
				!strings.Contains(failed.Err.Error(), "failed to get data in spc "+r.ns+"/c for secret ") {
				t.Errorf("told %v, want %q", failed.Err, tc.text)
			}
			if failed.Err != nil && strings.Contains(failed.Err.Error(), "hunter2") {
				t.Error("told what is in the volume")
			}
			// The author corrects it: the failure is over with the next fetch, also where the Secret's name is another.
			r.class("c", opaque("mended", "f"), opaque("good", "f"))
			v = r.volume(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-1", UID: types.UID(v.Request.Pod.UID)}}, "c")
			r.fetched(v, time.Now(), map[string]string{"f": "hunter2"})
			over, mended := r.outcome(), r.outcome()
			if over.Err != nil || over.Secret != failed.Secret || mended.Secret != "mended" || mended.Action != publish.SecretCreated {
				t.Errorf("then told %+v and %+v", over, mended)
			}
		})
	}
}

func TestASecretThatIsNamedTwice(t *testing.T) {
	r := newSecretRig(t)
	r.class("c", opaque("db", "a"), opaque("db", "b"))
	r.fetched(r.volume(r.pod("web-1", "web"), "c"), time.Now(), map[string]string{"a": "1", "b": "2"})
	r.wantFailed(provider.Invalid, "names the Secret 2 times", "one entry")
	r.wantNone()
	if r.secret("db") != nil {
		t.Error("it was made nevertheless")
	}
}

// In the background Secrets are kept in being: what is absent is made, from what the volume holds, owners are added, and nothing is
// overwritten, read whole, listed or watched.
func TestSecretsAreKeptInBeing(t *testing.T) {
	t.Attr("conformance", "10.1/4-deleted-secrets-come-back")
	r := newSecretRig(t, func(c *secretsync.Config) { c.EnsureEvery = 200 * time.Millisecond })
	r.class("c", opaque("db", "f"))
	v := r.volume(r.pod("web-1", "web"), "c")
	r.fetched(v, time.Now(), map[string]string{"f": "1"})
	r.wantDone(publish.SecretCreated)
	var whole atomic.Int32
	r.meddleWith(func(req *http.Request) *http.Response {
		if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/secrets/") && !strings.Contains(req.Header.Get("Accept"), "PartialObjectMetadata") {
			whole.Add(1)
		}
		return nil
	})
	r.run(r.Syncer)
	r.await(publish.SecretKept)

	r.remove("db")
	r.await(publish.SecretCreated)
	r.wantData("db", map[string]string{"f": "1"})
	r.wantOwners("db", uidOf("web"))

	// The same name and another uid, as of a StatefulSet that was made anew: the owner that is missing is added.
	r.patch("db", map[string]any{"metadata": map[string]any{"ownerReferences": []any{
		metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "of-an-earlier-one"}}}})
	r.await(publish.SecretOwned)
	r.wantOwners("db", uidOf("web"), "of-an-earlier-one")

	r.patch("db", map[string]any{"data": map[string]any{"f": "bWluZQ=="}})
	r.await(publish.SecretKept)
	r.await(publish.SecretKept)
	r.wantData("db", map[string]string{"f": "mine"})
	if n := whole.Load(); n > 0 {
		t.Errorf("%d Secrets were read whole", n)
	}
	for what := range r.asked() {
		if verb, _, _ := strings.Cut(what, " "); verb != "get" && verb != "create" && verb != "patch" {
			t.Errorf("asked to %s", what)
		}
	}

	// The next fetch sees to it, although what it fetches is as before.
	r.meddleWith(nil)
	r.fetched(v, time.Now(), map[string]string{"f": "1"})
	r.await(publish.SecretUpdated)
	r.wantData("db", map[string]string{"f": "1"})
}

// A Secret that comes back from a backup holds what it held then: the next fetch sees to it, although what it fetches is as before.
func TestASecretFromABackup(t *testing.T) {
	r := newSecretRig(t, func(c *secretsync.Config) { c.EnsureEvery = 100 * time.Millisecond })
	r.class("c", opaque("db", "f"))
	v := r.volume(r.pod("web-1", "web"), "c")
	r.fetched(v, time.Now().Add(-time.Hour), map[string]string{"f": "old"})
	r.wantDone(publish.SecretCreated)
	backup := r.secret("db")
	r.fetched(v, time.Now(), map[string]string{"f": "new"})
	r.wantDone(publish.SecretUpdated)
	r.remove("db")
	backup.ResourceVersion, backup.UID = "", ""
	r.put(backup)
	r.run(r.Syncer)
	r.await(publish.SecretKept)
	r.await(publish.SecretKept)
	r.fetched(v, time.Now(), map[string]string{"f": "new"})
	r.await(publish.SecretUpdated)
	r.wantData("db", map[string]string{"f": "new"})
}

// A try that is repeated is of the class as it was when its content was fetched: a later state of the class makes nothing newer of it.
func TestARetryIsAsOldAsItsFetch(t *testing.T) {
	t.Attr("conformance", "10.1/5-older-never-overwrites-newer")
	r := newSecretRig(t, func(c *secretsync.Config) { c.FirstRetry = 50 * time.Millisecond })
	r.class("c", opaque("db", "f"))
	now := time.Now()
	one, two := r.volume(r.pod("web-1", "web"), "c"), r.volume(r.pod("web-2", "web"), "c")
	r.meddleWith(func(req *http.Request) *http.Response {
		if req.Method != http.MethodPost {
			return nil
		}
		return answer(http.StatusInternalServerError, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":500}`)
	})
	r.fetched(one, now, map[string]string{"f": "v1"})
	r.wantFailed(provider.Unavailable)
	r.meddleWith(nil)
	r.fetchedOn(r.node(), two, now.Add(time.Second), map[string]string{"f": "v2"})
	r.wantDone(publish.SecretCreated)
	r.class("c", opaque("db", "f")) // the next generation
	r.run(r.Syncer)
	r.await(publish.SecretKept)
	r.wantData("db", map[string]string{"f": "v2"})
}

// A pod that is gone takes its own tries with it, and not those of others.
func TestARetryOfAPodThatIsGone(t *testing.T) {
	r := newSecretRig(t, func(c *secretsync.Config) { c.FirstRetry = 50 * time.Millisecond })
	r.class("c", opaque("db", "f"))
	r.put(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "db", Labels: map[string]string{managed: "true"}}, Type: "Opaque"})
	stays, goes := r.volume(r.pod("stays", "web"), "c"), r.volume(r.pod("goes", "web"), "c")
	r.meddleWith(func(*http.Request) *http.Response {
		return answer(http.StatusInternalServerError, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":500}`)
	})
	now := time.Now()
	for i, v := range []*publish.Volume{stays, goes} { // the one that goes is the newest
		r.fetched(v, now.Add(time.Duration(i)*time.Second), map[string]string{"f": "1"})
		r.wantFailed(provider.Unavailable)
	}
	r.meddleWith(nil)
	zero := int64(0)
	if err := api.Client().Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(r.ns).
		Delete(t.Context(), "goes", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	r.run(r.Syncer)
	r.await(publish.SecretUpdated)
	r.wantData("db", map[string]string{"f": "1"})
}

// run has a node look after Secrets until the test ends.
func (r *secretRig) run(s *secretsync.Syncer) (stop func()) {
	ctx, cancel := context.WithCancel(r.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.Error(err)
		}
	})
	r.Cleanup(stop)
	return stop
}

// await skips outcomes until this one.
func (r *secretRig) await(action publish.SecretAction) {
	r.Helper()
	for {
		o := r.outcome()
		if o.Err != nil {
			r.Fatal(o.Err)
		}
		if o.Action == action {
			return
		}
	}
}

// A volume that was mounted before the process began has its Secrets looked after too, without a fetch.
func TestSecretsOfVolumesFromBeforeARestart(t *testing.T) {
	r := newSecretRig(t)
	r.class("c", opaque("db", "f"))
	v := r.volume(r.pod("web-1", "web"), "c")
	r.fetched(v, time.Now(), map[string]string{"f": "1"})
	r.wantDone(publish.SecretCreated)
	r.remove("db")
	restarted := r.node(func(c *secretsync.Config) { c.EnsureEvery = 200 * time.Millisecond })
	restarted.TakeOver(v, time.Now())
	r.run(restarted)
	r.await(publish.SecretCreated)
	r.wantData("db", map[string]string{"f": "1"})
	r.wantOwners("db", uidOf("web"))
}

// That a Secret is there says nothing about an update of it that failed: the failure lasts until it is mended, and is then over.
func TestALookDoesNotEndAFailedUpdate(t *testing.T) {
	r := newSecretRig(t, func(c *secretsync.Config) { c.EnsureEvery, c.FirstRetry = 50*time.Millisecond, time.Hour })
	r.class("c", opaque("db", "f"))
	r.class("other", opaque("other", "f"))
	yes := true
	r.put(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "db", Labels: map[string]string{managed: "true"}}, Type: "Opaque", Immutable: &yes})
	v := r.volume(r.pod("web-1", "web"), "c")
	r.fetched(v, time.Now(), map[string]string{"f": "new"})
	r.wantFailed(provider.Invalid, "immutable")
	// A volume whose file is not there, of a Secret that is.
	r.put(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "other", Labels: map[string]string{managed: "true"}}, Type: "Opaque"})
	r.fetched(r.volume(r.pod("web-2", "web"), "other"), time.Now(), map[string]string{"g": "1"})
	r.wantFailed(provider.Invalid, "not found in the pod")
	r.run(r.Syncer)
	r.class("third", opaque("third", "f"))
	r.fetched(r.volume(r.pod("web-3", "web"), "third"), time.Now(), map[string]string{"f": "1"})
	for looks := 0; looks < 5; {
		switch o := r.outcome(); {
		case o.Secret == "third" && o.Err == nil:
			looks++
		case o.Err == nil:
			t.Fatalf("told that %s is as it should be", o.Secret)
		}
	}
	r.remove("db")
	for o := r.outcome(); o.Secret != "db"; o = r.outcome() {
		if o.Err != nil {
			t.Error(o.Err)
		}
	}
	r.fetched(v, time.Now(), map[string]string{"f": "new"})
	for o := r.outcome(); ; o = r.outcome() {
		if o.Secret == "db" && o.Err == nil {
			break
		}
	}
	r.wantData("db", map[string]string{"f": "new"})
}

// One bad class or pod stops nobody: others of the node are looked after.
func TestOneBadClassOrPodStopsNobody(t *testing.T) {
	t.Attr("conformance", "10.1/7-one-bad-class-or-pod-stops-nobody")
	r := newSecretRig(t, func(c *secretsync.Config) { c.EnsureEvery = 200 * time.Millisecond })
	r.class("gone", opaque("gone", "f"))
	r.class("c", opaque("db", "f"))
	pods := []*corev1.Pod{r.pod("of-no-class", "web"), r.pod("gone", "web"), r.pod("web-1", "web")}
	for i, class := range []string{"gone", "c", "c"} {
		r.fetched(r.volume(pods[i], class), time.Now(), map[string]string{"f": "1"})
		r.outcome()
	}
	r.noClass("gone")
	restarted := r.node(func(c *secretsync.Config) { c.EnsureEvery = 200 * time.Millisecond })
	restarted.TakeOver(r.volume(pods[0], "gone"), time.Now())
	restarted.TakeOver(r.volume(pods[1], "c"), time.Now()) // the newest, whose pod will be gone
	restarted.TakeOver(r.volume(pods[2], "c"), time.Now().Add(-time.Hour))
	zero := int64(0)
	if err := api.Client().Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(r.ns).
		Delete(t.Context(), "gone", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	r.patch("db", map[string]any{"metadata": map[string]any{"ownerReferences": nil}})
	r.run(restarted)
	r.await(publish.SecretOwned)
	r.wantOwners("db", uidOf("web"))
}

// What failed is tried again, by itself, and then over for every volume that waited.
func TestFailuresAreTriedAgain(t *testing.T) {
	t.Attr("conformance", "10.1/16-retries-are-spaced-and-made")
	r := newSecretRig(t, func(c *secretsync.Config) { c.FirstRetry = 50 * time.Millisecond })
	r.class("c", opaque("db", "f"))
	one, two := r.volume(r.pod("web-1", "web"), "c"), r.volume(r.pod("web-2", "rs-2"), "c")
	var down atomic.Bool
	var tries atomic.Int32
	down.Store(true)
	r.meddleWith(func(req *http.Request) *http.Response {
		if !down.Load() || !strings.Contains(req.URL.Path, "/secrets") {
			return nil
		}
		tries.Add(1)
		return answer(http.StatusInternalServerError, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"InternalError","code":500,"message":"etcd is away"}`)
	})
	for _, v := range []*publish.Volume{one, two} {
		r.fetched(v, time.Now(), map[string]string{"f": "1"})
		r.wantFailed(provider.Unavailable, "etcd is away", "tried again")
	}
	r.run(r.Syncer)
	for range 3 {
		r.wantFailed(provider.Unavailable, "etcd is away")
	}
	if n := tries.Load(); n > 20 {
		t.Errorf("%d tries", n)
	}
	down.Store(false)
	volumes := map[string]bool{}
	for len(volumes) < 2 {
		if o := r.outcome(); o.Err == nil {
			volumes[o.Volume.ID] = true
		}
	}
	r.wantData("db", map[string]string{"f": "1"})
	r.wantOwners("db", uidOf("web"), uidOf("rs-2"))

	// Where nobody can tell any more, it is the update that fails, of a Secret that was there.
	down.Store(true)
	r.fetched(one, time.Now(), map[string]string{"f": "2"})
	for o := r.outcome(); ; o = r.outcome() {
		if o.Err != nil && o.Volume.ID == one.ID {
			if !o.Exists {
				t.Errorf("told as if there were no Secret: %+v", o)
			}
			break
		}
	}
}

// A missing right is told with the value that grants it.
func TestTheRightIsMissing(t *testing.T) {
	t.Attr("conformance", "10.3/no-right-on-secrets")
	r := newSecretRig(t)
	api.ServiceAccount(t, r.ns, "without", nil)
	without := r.node(func(c *secretsync.Config) { c.API = api.ConfigFor(api.Token(t, r.ns, "without").Token) })
	r.class("c", opaque("db", "f"))
	r.fetchedOn(without, r.volume(r.pod("web-1", "web"), "c"), time.Now(), map[string]string{"f": "1"})
	r.wantFailed(provider.Denied, "syncSecret.enabled")
}

// The cluster's own rules are told as what they are.
func TestAdmissionRefuses(t *testing.T) {
	for _, tc := range []struct{ message, text string }{
		{`secrets \"db\" is forbidden: exceeded quota: q, requested: secrets=1`, "a quota or an admission plugin of the cluster refuses it"},
		{`admission webhook \"policy\" denied the request: no team label`, "no team label (a quota or an admission plugin"},
		{`secrets \"db\" is forbidden: cannot set an ownerRef on a resource you can't delete`, "needs delete on secrets in this cluster"},
	} {
		r := newSecretRig(t)
		r.class("c", opaque("db", "f"))
		r.meddleWith(func(req *http.Request) *http.Response {
			if req.Method != http.MethodPost {
				return nil
			}
			return answer(http.StatusForbidden, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"`+tc.message+`"}`)
		})
		r.fetched(r.volume(r.pod("web-1", "web"), "c"), time.Now(), map[string]string{"f": "1"})
		r.wantFailed(provider.Denied, tc.text)
	}
}

// A policy of the cluster refuses with the code of an object that is wrong; what is wrong is not the class.
func TestAPolicyRefuses(t *testing.T) {
	r := newSecretRig(t)
	r.class("c", opaque("db", "f"))
	r.meddleWith(func(req *http.Request) *http.Response {
		if req.Method != http.MethodPost {
			return nil
		}
		return answer(http.StatusUnprocessableEntity, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422,
			"message":"secrets \"db\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no team label"}`)
	})
	r.fetched(r.volume(r.pod("web-1", "web"), "c"), time.Now(), map[string]string{"f": "1"})
	r.wantFailed(provider.Invalid, "no team label", "an admission plugin of the cluster refuses it")
}

// Nobody needs Secrets for a pod that is gone, nor for a volume.
func TestNothingIsMadeForWhatIsGone(t *testing.T) {
	r := newSecretRig(t, func(c *secretsync.Config) { c.EnsureEvery, c.FirstRetry = 100*time.Millisecond, 50*time.Millisecond })
	r.class("c", opaque("db", "f"))
	pod := r.pod("web-1", "web")
	v := r.volume(pod, "c")
	v.Request.Pod.UID = "of-an-earlier-one" // or of a later one, which has its own volume
	r.fetched(v, time.Now(), map[string]string{"f": "1"})
	r.wantNone()
	if r.secret("db") != nil {
		t.Error("made for a pod that is gone")
	}

	r.meddleWith(func(req *http.Request) *http.Response {
		if req.Method != http.MethodPost {
			return nil
		}
		return answer(http.StatusInternalServerError, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":500}`)
	})
	v = r.volume(pod, "c")
	r.fetched(v, time.Now(), map[string]string{"f": "1"})
	r.wantFailed(provider.Unavailable)
	r.Observe(t.Context(), publish.Outcome{Operation: publish.Unpublishing, Volume: &publish.Volume{ID: v.ID}})
	r.meddleWith(nil)
	// Another volume of the node shows that the loop has come by.
	r.class("other", opaque("other", "f"))
	r.fetched(r.volume(r.pod("web-2", "web"), "other"), time.Now(), map[string]string{"f": "1"})
	r.wantDone(publish.SecretCreated)
	r.run(r.Syncer)
	for range 3 {
		r.await(publish.SecretKept)
	}
	if r.secret("db") != nil {
		t.Error("made for a volume that is gone")
	}
}
