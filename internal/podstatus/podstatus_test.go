package podstatus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

const target = "/var/lib/kubelet/pods/uid-web/volumes/kubernetes.io~csi/v/mount"

// in runs a test in a world where time passes only when everybody waits. It begins on 2000-01-01T00:00:00Z.
func in(t *testing.T, test func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newBench(t)) })
}

func TestTheLifeOfAStatus(t *testing.T) {
	t.Attr("conformance", "12.2/spcps-name")
	t.Attr("conformance", "12.2/spcps-content")
	in(t, func(t *testing.T, b *bench) {
		v := volumeOf("web", "db", "v")
		b.record(v, first("secret/b=2", "secret/a=1", "secret/b=3", "empty="))
		b.wantAsked("POST web-shop-db")
		equal(t, "object", b.object("web-shop-db"), `{"apiVersion":"secrets-store.csi.x-k8s.io/v1","kind":"SecretProviderClassPodStatus",`+
			`"metadata":{"labels":{"internal.secrets-store.csi.k8s.io/node-name":"node-1"},"name":"web-shop-db","namespace":"shop",`+
			`"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"web","uid":"uid-web"}],"resourceVersion":"1"},`+
			`"status":{"conditions":[{"lastTransitionTime":"2000-01-01T00:00:00Z","message":"the volume holds what the provider last gave",`+
			`"reason":"Refreshed","status":"True","type":"UpToDate"}],"mounted":true,`+
			`"objects":[{"id":"empty","version":""},{"id":"secret/a","version":"1"},{"id":"secret/b","version":"3"}],`+
			`"podName":"web","secretProviderClassName":"db","targetPath":"`+target+`"}}`)

		b.record(v, holds("secret/a=1", "secret/b=3", "empty=")) // the same in another order
		b.wantAsked()

		time.Sleep(time.Minute)
		b.record(v, holds("secret/a=2"))
		b.wantAsked("PATCH web-shop-db")
		equal(t, "objects", b.object("web-shop-db", "status", "objects"), `[{"id":"secret/a","version":"2"}]`)
		if c := b.object("web-shop-db", "status", "conditions"); !strings.Contains(c, "00:00:00Z") {
			t.Errorf("the condition changed without a transition: %s", c)
		}

		b.record(v, holds()) // an empty class
		b.wantAsked("PATCH web-shop-db")
		equal(t, "objects", b.object("web-shop-db", "status", "objects"), `null`)
		b.record(v, holds())
		b.wantAsked()

		b.Observe(t.Context(), publish.Outcome{Operation: publish.Unpublishing, Volume: &publish.Volume{ID: v.ID}, Err: errors.New("busy")})
		b.record(v, holds())
		b.wantAsked() // still known
		b.Observe(t.Context(), publish.Outcome{Operation: publish.Unpublishing, Volume: &publish.Volume{ID: v.ID}})
		b.record(v, holds())
		b.wantAsked("GET web-shop-db") // forgotten
	})
}

func TestConditionsChangeOnTransitions(t *testing.T) {
	t.Attr("conformance", "10.1/15-failed-rotation-is-visible")
	in(t, func(t *testing.T, b *bench) {
		v := volumeOf("web", "db", "v")
		b.record(v, first("a=1"))
		b.asked()
		condition := func() string { return b.object("web-shop-db", "status", "conditions") }
		denied := func(request string) error {
			return provider.Errors{{Kind: provider.Denied, Object: "a", Message: "reading a in kv: 403 (" + request + ")", Remedy: "grant it"}}
		}

		time.Sleep(time.Minute)
		b.recordFailure(v, denied("id 1"))
		b.wantAsked("PATCH web-shop-db")
		equal(t, "condition", condition(), `[{"lastTransitionTime":"2000-01-01T00:01:00Z","message":"reading a in kv: 403 (id 1) (grant it)",`+
			`"reason":"Denied","status":"False","type":"UpToDate"}]`)
		equal(t, "objects", b.object("web-shop-db", "status", "objects"), `[{"id":"a","version":"1"}]`)

		time.Sleep(time.Minute)
		b.recordFailure(v, denied("id 2")) // only the text differs
		b.wantAsked()
		b.recordFailure(v, fmt.Errorf("asking: %w", context.DeadlineExceeded)) // another reason, no transition
		b.wantAsked("PATCH web-shop-db")
		equal(t, "condition", condition(), `[{"lastTransitionTime":"2000-01-01T00:01:00Z","message":"asking: context deadline exceeded",`+
			`"reason":"Unavailable","status":"False","type":"UpToDate"}]`)
		b.recordFailure(v, fmt.Errorf("asking: %w", context.Canceled)) // the call was broken off
		b.wantAsked()

		b.record(v, holds("a=1"))
		b.wantAsked("PATCH web-shop-db")
		if c := condition(); !strings.Contains(c, `"00:02`) && !strings.Contains(c, `00:02:00Z`) || !strings.Contains(c, `"True"`) {
			t.Errorf("condition %s", c)
		}

		b.recordFailure(v, errors.New(strings.Repeat("é\x00\n", 2000)))
		if c := condition(); len(c) > 1200 || !strings.Contains(c, "...") || !strings.Contains(c, `"Internal"`) {
			t.Errorf("condition %d %s", len(c), c)
		}
		b.asked()

		b.restart()
		b.recordFailure(v, errors.New("again"))
		b.wantAsked("GET web-shop-db")
	})
}

// An object is made with what the volume holds, never before.
func TestNoObjectWithoutObjects(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		v := volumeOf("web", "db", "v")
		b.recordFailure(v, errors.New("x"))
		if len(b.names()) > 0 {
			t.Errorf("there is %v", b.names())
		}
		b.asked()
		b.record(v, holds("a=1"))
		b.wantAsked("GET web-shop-db", "GET "+own(t, b), "POST web-shop-db")

		b.mu.Lock()
		delete(b.objects, "web-shop-db") // by somebody
		b.mu.Unlock()
		b.recordFailure(v, errors.New("x"))
		b.record(v, holds("a=1"))
		if got := b.object("web-shop-db", "status", "objects"); got != `[{"id":"a","version":"1"}]` {
			t.Errorf("objects %s", got)
		}
	})
}

// own returns the name that only this volume can have, from the last request for it.
func own(t *testing.T, b *bench) string {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.requests {
		_, name, _ := strings.Cut(r, " ")
		if name != "web-shop-db" {
			return name
		}
	}
	t.Fatalf("no such name in %v", b.requests)
	return ""
}

func TestNames(t *testing.T) {
	t.Attr("conformance", "10.1/14-status-names-collide")
	t.Attr("conformance", "10.1/14-status-names-too-long")
	long := strings.Repeat("n", 250)
	for _, tc := range []struct {
		name, class string
		others      string // an object by the plain name
		plain       bool
	}{
		{"free", "db", "", true},
		{"too long", long, "", false},
		{"too long, with a dot at the cut", strings.Repeat("n", 226) + "." + strings.Repeat("m", 26), "", false},
		{"of another pod", "db", `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"web-shop","uid":"uid-web-shop"}]},
			"status":{"podName":"web-shop","secretProviderClassName":"x"}}`, false},
		{"of another pod, which only the owner says", "db",
			`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"web-shop","uid":"uid-web-shop"}]}}`, false},
		{"of another pod, which only the status says", "db", `{"status":{"podName":"web-shop"}}`, false},
		{"of another volume of the pod", "db", `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"web","uid":"uid-web"}]},
			"status":{"podName":"web","targetPath":"/var/lib/kubelet/pods/uid-web/volumes/kubernetes.io~csi/w/mount"}}`, false},
		{"of a gone pod of the same name", "db", `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"web","uid":"gone"}]},
			"status":{"podName":"web","targetPath":"/var/lib/kubelet/pods/gone/volumes/kubernetes.io~csi/v/mount"}}`, true},
		{"of nobody", "db", `{}`, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, func(t *testing.T, b *bench) {
				plain := "web-shop-" + tc.class
				if tc.others != "" {
					b.put(plain, tc.others)
				}
				v := volumeOf("web", tc.class, "v")
				b.record(v, first("a=1"))
				names := b.names()
				name := names[len(names)-1]
				if tc.plain != (name == plain) || len(names) != 1+btoi(!tc.plain && tc.others != "") {
					t.Fatalf("names %v", names)
				}
				if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
					t.Errorf("%s: %v", name, problems)
				}
				if _, digits, _ := strings.Cut(strings.TrimPrefix(name, plain[:min(len(plain), 230)]), "-"); !tc.plain && len(digits) != 16 {
					t.Errorf("name %s", name)
				}
				equal(t, "owner", b.object(name, "metadata", "ownerReferences"), `[{"apiVersion":"v1","kind":"Pod","name":"web","uid":"uid-web"}]`)
				equal(t, "target", b.object(name, "status", "targetPath"), `"`+target+`"`)
				if before := b.asked(); len(before) > 3 {
					t.Errorf("asked %v", before)
				}

				b.wantFoundAgain(v, name)
				if got := b.names(); !slices.Equal(got, names) {
					t.Errorf("names %v, were %v", got, names)
				}
			})
		})
	}
}

// wantFoundAgain checks that whoever comes later works on the same object.
func (b *bench) wantFoundAgain(v *publish.Volume, name string) {
	b.t.Helper()
	b.restart() // a new process has nothing to write
	b.record(v, holds("a=1"))
	for _, r := range b.asked() {
		if !strings.HasPrefix(r, "GET ") {
			b.t.Errorf("asked %s", r)
		}
	}
	b.restart() // and a reboot of the node makes the volume again
	b.record(v, first("a=1"))
	b.asked()
	b.record(v, holds("a=2"))
	b.wantAsked("PATCH " + name)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// The names of two volumes of a class in one pod do not depend on who asks first after a restart.
func TestAClassMountedTwice(t *testing.T) {
	t.Attr("conformance", "10.1/14-class-mounted-twice")
	in(t, func(t *testing.T, b *bench) {
		v, w := volumeOf("web", "db", "v"), volumeOf("web", "db", "w")
		var both sync.WaitGroup
		both.Go(func() { b.record(v, first("a=1")) })
		both.Go(func() { b.record(w, first("a=1")) })
		both.Wait()
		names := b.names()
		if len(names) != 2 || names[0] != "web-shop-db" {
			t.Fatalf("names %v", names)
		}
		before := [2]string{b.object(names[0]), b.object(names[1])}
		for _, order := range [][]*publish.Volume{{v, w}, {w, v}} {
			b.restart()
			for _, x := range order {
				b.record(x, holds("a=1"))
			}
		}
		for i, name := range names {
			equal(t, name, b.object(name), before[i])
		}
	})
}

// What upstream's driver wrote is taken as it is when it is right, and made right when it is not.
func TestAdoption(t *testing.T) {
	t.Attr("conformance", "12.2/spcps-adopted")
	t.Attr("conformance", "10.1/9-status-without-labels")
	object := func(labels, objects, more string) string {
		return `{"metadata":{` + labels + `"annotations":{"theirs":"kept"},"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"web","uid":"uid-web"}` + more + `]},
			"status":{"podName":"web","secretProviderClassName":"db","mounted":true,"targetPath":"` + target + `","objects":` + objects + `}}`
	}
	const ours = `"labels":{"internal.secrets-store.csi.k8s.io/node-name":"node-1","theirs":"kept"},`
	const theirs = `,{"apiVersion":"v1","kind":"ConfigMap","name":"x","uid":"u","blockOwnerDeletion":true}`
	for _, tc := range []struct {
		name, object string
		asked        []string
	}{
		{"1.6.0", object(ours, `[{"id":" a ","version":"1\n"},{"id":"b"}]`, ""), []string{"GET"}},
		{"1.5.6, which trimmed", object(ours, `[{"id":"a","version":"1"},{"id":"b"}]`, ""), []string{"GET"}},
		{"a failed condition", strings.Replace(object(ours, `[{"id":"a","version":"1"},{"id":"b"}]`, ""), `"objects"`,
			`"conditions":[{"type":"UpToDate","status":"False"},7,{"type":"Theirs"}],"objects"`, 1), []string{"GET", "PATCH"}},
		{"owners of others", object(ours, `[{"id":"a","version":"1"},{"id":"b"}]`, theirs), []string{"GET"}},
		{"no owner but others'", strings.Replace(object(ours, `[{"id":"a","version":"1"},{"id":"b"}]`, theirs), `"uid":"uid-web"`, `"uid":"uid-web","name":"w"`, 1), []string{"GET", "PATCH"}},
		{"other versions", object(ours, `[{"id":"a","version":"2"},{"id":"b"}]`, theirs), []string{"GET", "PATCH"}},
		{"another node", object(`"labels":{"internal.secrets-store.csi.k8s.io/node-name":"node-2"},`, `[{"id":"a","version":"1"},{"id":"b"}]`, ""), []string{"GET", "PATCH"}},
		{"no labels", object("", `[{"id":"a","version":"1"},{"id":"b"}]`, ""), []string{"GET", "PATCH"}},
		{"odd objects", object(ours, `[7,null,{"id":7},"a"]`, ""), []string{"GET", "PATCH"}},
		{"objects are a text", object(ours, `"a"`, ""), []string{"GET", "PATCH"}},
		{"nothing", `{}`, []string{"GET", "PATCH"}},
		{"a status of another type", `{"status":"odd"}`, []string{"GET", "PATCH"}},
		{"odd everywhere", `{"metadata":{"labels":7,"ownerReferences":[7,{"kind":7}]},"status":{"podName":7,"targetPath":[],"mounted":{},"conditions":{}}}`,
			[]string{"GET", "PATCH"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, func(t *testing.T, b *bench) {
				b.put("web-shop-db", tc.object)
				v := volumeOf("web", "db", "v")
				b.record(v, holds(" a =1\n", "b="))
				var want []string
				for _, method := range tc.asked {
					want = append(want, method+" web-shop-db")
				}
				b.wantAsked(want...)
				equal(t, "target", b.object("web-shop-db", "status", "targetPath"), `"`+target+`"`)
				equal(t, "node", b.object("web-shop-db", "metadata", "labels", "internal.secrets-store.csi.k8s.io/node-name"), `"node-1"`)
				got := b.object("web-shop-db")
				for _, part := range []string{`"annotations":{"theirs":"kept"}`, `"theirs":"kept"}`, `"blockOwnerDeletion":true`, `{"type":"Theirs"}`} {
					if strings.Contains(strings.ReplaceAll(tc.object, " ", ""), part) && !strings.Contains(got, part) {
						t.Errorf("%s is lost: %s", part, got)
					}
				}
				b.record(v, holds(" a =1\n", "b="))
				b.wantAsked()
			})
		})
	}
}

// An object that garbage collection removes just now does not cost the volume its name.
func TestANameThatBecomesFree(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.put("web-shop-db", `{}`)
		b.breaks(func(method, name string) int {
			if method == "GET" {
				b.mu.Lock()
				delete(b.objects, name)
				b.mu.Unlock()
			}
			return 0
		})
		b.record(volumeOf("web", "db", "v"), first("a=1"))
		b.wantAsked("POST web-shop-db", "GET web-shop-db", "POST web-shop-db")
	})
}

// A pod that is gone does not take the object back from the one that followed it.
func TestASuccessorKeepsItsObject(t *testing.T) {
	const successor = `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"web","uid":"next"}]},"status":{"podName":"web"}}`
	in(t, func(t *testing.T, b *bench) {
		v := volumeOf("web", "db", "v")
		b.record(v, first("a=1"))
		b.put("web-shop-db", successor)
		b.asked()
		b.record(v, holds("a=2"))
		b.wantAsked("PATCH web-shop-db", "GET web-shop-db")
		b.record(v, holds("a=3"))
		b.wantAsked()
		equal(t, "owner", b.object("web-shop-db", "metadata", "ownerReferences"), `[{"apiVersion":"v1","kind":"Pod","name":"web","uid":"next"}]`)

		b.restart()
		b.record(v, holds("a=4"))
		equal(t, "owner", b.object("web-shop-db", "metadata", "ownerReferences"), `[{"apiVersion":"v1","kind":"Pod","name":"web","uid":"next"}]`)
	})
}

func TestWithoutConditionsInTheDefinition(t *testing.T) {
	t.Attr("conformance", "12.1/without-conditions")
	in(t, func(t *testing.T, b *bench) {
		b.prunes = true
		v, w := volumeOf("web", "db", "v"), volumeOf("web2", "db", "v")
		b.record(v, first("a=1"))
		b.record(w, first("a=1"))
		b.asked()
		b.recordFailure(v, errors.New("x"))
		b.recordFailure(w, errors.New("x"))
		b.wantAsked()
		b.record(v, holds("a=1"))
		b.wantAsked()
		b.record(v, holds("a=2"))
		b.wantAsked("PATCH web-shop-db")
		if n := strings.Count(b.logs.String(), "status.conditions"); n != 1 {
			t.Errorf("%d lines:\n%s", n, b.logs)
		}

		b.mu.Lock()
		b.prunes = false // the definition was replaced
		b.mu.Unlock()
		b.record(v, holds("a=3"))
		b.recordFailure(v, errors.New("x"))
		if c := b.object("web-shop-db", "status", "conditions"); !strings.Contains(c, "False") {
			t.Errorf("conditions %s", c)
		}
	})
}
