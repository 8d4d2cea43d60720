package classes_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"keymount/internal/classes"
	"keymount/internal/provider"
)

func TestManyClassesOfANamespaceAreOneWatch(t *testing.T) {
	r := newRig(t)
	for i := range 60 {
		r.put("ns", fmt.Sprintf("c%d", i), nil)
	}
	r.put("ns", "unused", nil)
	r.put("other", "c", nil)
	r.Use("other", "other", "c")
	use := func(from, to int) {
		for i := from; i < to; i++ {
			r.Use(fmt.Sprint(i), "ns", fmt.Sprintf("c%d", i))
		}
	}
	kept := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			r.awaitKept("ns", fmt.Sprintf("c%d", i))
		}
	}
	use(0, 50)
	r.run()
	kept(0, 50)
	if n := len(r.watches()); n != 51 {
		t.Errorf("50 classes and another's are %d watches, want 51", n)
	}
	use(50, 51)
	await(t, "the namespace is watched", func() bool { return slices.Equal(r.watches(), []string{"ns/", "other/c"}) })
	kept(0, 51)
	if _, n, _ := r.Sizes(); n != 52 {
		t.Errorf("%d classes are kept, want those in use", n)
	}

	// A class that comes into use when its namespace is watched already is read once, since no event tells of it.
	use(51, 52)
	if n := r.cost(func() { r.get("c51"); r.get("c51"); r.get("c51") }); n != 1 {
		t.Errorf("it took %d requests, want 1", n)
	}
	r.put("ns", "c51", nil)
	await(t, "its change arrives", func() bool { return r.get("c51").Generation == 2 })

	for i := 51; i >= 26; i-- {
		r.Release(fmt.Sprint(i))
	}
	r.put("ns", "c0", nil)
	await(t, "the change arrives", func() bool { return r.get("c0").Generation == 2 })
	if got := r.watches(); !slices.Equal(got, []string{"ns/", "other/c"}) {
		t.Errorf("with 26 classes the watches are %v, want the namespace's still", got)
	}
	r.Release("25")
	await(t, "each is watched by name", func() bool { return len(r.watches()) == 26 })
	kept(0, 25)
}

func TestABrokenWatchIsOpenedAgainWhereItWas(t *testing.T) {
	r := newRig(t)
	r.put("ns", "c", nil)
	r.Use("v", "ns", "c")
	r.run()
	r.awaitKept("ns", "c")
	r.cut()
	r.put("ns", "c", nil)
	await(t, "the watch is opened again", func() bool { return r.count("watch") == 2 && r.Kept("ns", "c") })
	if n := r.cost(func() {
		if got := r.get("c"); got.Generation != 2 {
			t.Errorf("got generation %d, want 2", got.Generation)
		}
	}); n != 0 {
		t.Errorf("it took %d requests, want 0", n)
	}

	r.put("ns", "c", nil)
	await(t, "the change arrives", func() bool { return r.get("c").Generation == 3 })
	r.forget() // the resource version that the watch would go on from is gone
	r.put("other", "c", nil)
	r.forget()
	r.cut()
	await(t, "the watch is told that it asks for too old a version", func() bool { return r.count("gone") == 1 })
	r.awaitKept("ns", "c")
	r.remove("ns", "c")
	await(t, "the deletion arrives", func() bool { _, err := r.Get(context.Background(), "ns", "c"); return err != nil })
	assertNotFound(t, r.failure("c"))
}

// What changed while the watch was away and the API server has forgotten about must not be missed.
func TestADeletionInAnOutageIsSeen(t *testing.T) {
	var away atomic.Bool
	r := newRig(t, func(s *server, _ *classes.Config) {
		s.refuse = func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			if away.Load() {
				fail(w, 503, "ServiceUnavailable", "away")
			}
			return away.Load()
		}
	})
	r.put("ns", "c", nil)
	r.Use("v", "ns", "c")
	r.run()
	r.awaitKept("ns", "c")

	away.Store(true)
	r.cut()
	await(t, "the break is noticed", func() bool { return !r.Kept("ns", "c") })
	if got := r.get("c"); got.Generation != 1 {
		t.Errorf("in the outage generation %d is served, want the last known", got.Generation)
	}
	await(t, "the outage is said", func() bool { return r.logs.count("does not work") == 1 })
	r.remove("ns", "c")
	r.forget()
	away.Store(false)
	r.awaitKept("ns", "c")
	assertNotFound(t, r.failure("c"))
	await(t, "its end is said", func() bool { return r.logs.count("works again") == 1 })
}

// While the watch is broken, what it told before is not served as long as the class can be read.
func TestABrokenWatchIsNotBelieved(t *testing.T) {
	r := newRig(t)
	r.put("ns", "c", nil)
	r.Use("v", "ns", "c")
	r.run()
	r.awaitKept("ns", "c")
	r.with(func() {
		r.refuse = func(w http.ResponseWriter, _ *http.Request, verb string) bool {
			if verb != "get" {
				fail(w, 503, "ServiceUnavailable", "away")
			}
			return verb != "get"
		}
	})
	r.cut()
	await(t, "the break is noticed", func() bool { return !r.Kept("ns", "c") })
	r.put("ns", "c", nil)
	if got := r.get("c"); got.Generation != 2 {
		t.Errorf("generation %d is served, want 2", got.Generation)
	}
	r.with(func() {
		r.refuse = func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			fail(w, 503, "ServiceUnavailable", "away")
			return true
		}
	})
	if got := r.get("c"); got.Generation != 2 {
		t.Errorf("in the outage generation %d is served, want what was last read", got.Generation)
	}
}

// A class in use that no watch has told of is not served from what was read some time ago.
func TestWithoutAWatchNothingOldIsServed(t *testing.T) {
	var away atomic.Bool
	r := newRig(t, func(s *server, _ *classes.Config) {
		s.refuse = func(w http.ResponseWriter, _ *http.Request, verb string) bool {
			if verb != "get" {
				fail(w, 403, "Forbidden", "cannot watch")
				return true
			}
			if away.Load() {
				fail(w, 503, "ServiceUnavailable", "away")
			}
			return away.Load()
		}
	})
	r.put("ns", "c", nil)
	r.put("ns", "d", nil)
	r.Use("v", "ns", "c")
	r.Use("w", "ns", "d")
	r.run()
	await(t, "the watch has been refused some times", func() bool { return r.count("watch") > 6 })
	if n := r.count("get"); n != 0 {
		t.Fatalf("%d reads", n)
	}
	r.get("c")
	r.get("c")
	if n := r.count("get"); n != 2 {
		t.Errorf("without a watch two look-ups were %d reads, want 2", n)
	}
	if n := r.logs.count("does not work"); n != 1 {
		t.Errorf("%d log lines about refused watches, want 1", n)
	}
	away.Store(true)
	if e := r.failure("c"); e.Kind != provider.Unavailable {
		t.Errorf("got %v", e)
	}
}

// A hung API server must not hold a look-up for which a state is there.
func TestAHungReadDoesNotHoldBack(t *testing.T) {
	hang := make(chan struct{})
	var hangs atomic.Bool
	r := newRig(t, func(s *server, cfg *classes.Config) {
		cfg.Patience = time.Millisecond
		s.refuse = func(http.ResponseWriter, *http.Request, string) bool {
			if hangs.Load() {
				<-hang
			}
			return false
		}
	})
	t.Cleanup(func() { close(hang) })
	r.put("ns", "c", nil)
	r.Use("v", "ns", "c")
	r.run()
	r.awaitKept("ns", "c")
	hangs.Store(true)
	r.cut()
	await(t, "the break is noticed", func() bool { return !r.Kept("ns", "c") })
	ctx, cancel := context.WithTimeout(context.Background(), 9*time.Second) // less than a read may take
	defer cancel()
	if _, err := r.Get(ctx, "ns", "c"); err != nil {
		t.Error(err)
	}
}

func TestServersThatCannotStreamTheState(t *testing.T) {
	r := newRig(t, func(s *server, _ *classes.Config) { s.streams = false })
	r.put("ns", "c", nil)
	r.Use("v", "ns", "c")
	r.run()
	r.awaitKept("ns", "c")
	if r.count("list") != 1 || r.logs.count("does not work") != 0 {
		t.Errorf("%d lists and %d complaints", r.count("list"), r.logs.count("does not work"))
	}
}

func TestOldVersion(t *testing.T) {
	t.Attr("conformance", "12.1/v1alpha1-only")
	var clock atomic.Int64
	r := newRig(t, func(s *server, cfg *classes.Config) {
		s.served = []string{"v1alpha1"}
		cfg.Now = func() time.Time { return time.Unix(1_800_000_000+clock.Load(), 0) }
	})
	r.put("ns", "c", nil)
	r.get("c")
	r.get("c")
	if r.count("get v1") != 1 || r.count("get v1alpha1") != 2 || r.logs.count("v1alpha1 only") != 1 {
		t.Errorf("%d reads of v1, %d of v1alpha1, want 1 and 2", r.count("get v1"), r.count("get v1alpha1"))
	}
	r.Use("v", "ns", "c")
	r.run()
	r.awaitKept("ns", "c")
	if r.count("watch v1alpha1") != 1 || r.count("watch v1") != 0 {
		t.Errorf("%d watches of v1alpha1, %d of v1, want 1 and 0", r.count("watch v1alpha1"), r.count("watch v1"))
	}
	assertNotFoundIs(t, r, "none", "get v1alpha1")

	clock.Add(int64(10 * time.Minute / time.Second)) // v1 is asked again
	r.with(func() {
		r.refuse = func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			fail(w, 503, "ServiceUnavailable", "away")
			return true
		}
	})
	if e := r.failure("none"); e.Kind != provider.Unavailable || r.logs.count("as v1 again") != 0 {
		t.Errorf("an answer that says nothing about versions: %v, v1 was said to be served %d times", e, r.logs.count("as v1 again"))
	}
	r.with(func() { r.refuse = nil }) // and again it is not served
	assertNotFoundIs(t, r, "none", "get v1")
	assertNotFoundIs(t, r, "none", "get v1alpha1")
	r.with(func() { r.served = []string{"v1"} }) // the cluster was upgraded, and the old version is gone
	assertNotFoundIs(t, r, "none", "get v1")
	r.cut()
	await(t, "the watch moves to v1", func() bool { return r.count("watch v1") == 1 })
	r.awaitKept("ns", "c")

	r.with(func() { r.served = nil })
	if e := r.failure("other"); e.Kind != provider.NotFound || e.Remedy != "install the definitions of secrets-store.csi.x-k8s.io" {
		t.Errorf("without the definitions: %v", e)
	}
}

// assertNotFoundIs looks a class up that does not exist and checks that exactly one request of a kind was made for it.
func assertNotFoundIs(t *testing.T, r *rig, name, request string) {
	t.Helper()
	before := r.count(request)
	if e := r.failure(name); e.Kind != provider.NotFound || r.count(request) != before+1 {
		t.Errorf("%v, with %d of %s, want one", e, r.count(request)-before, request)
	}
}

func TestRestartOpensEachWatchOnce(t *testing.T) {
	r := newRig(t)
	for i := range 200 {
		r.put("ns", fmt.Sprintf("c%d", i%60), nil)
		r.Use(fmt.Sprint(i), "ns", fmt.Sprintf("c%d", i%60))
	}
	if r.count("all") != 0 {
		t.Error("there were requests before Run")
	}
	r.run()
	for i := range 60 {
		r.awaitKept("ns", fmt.Sprintf("c%d", i))
	}
	if n := r.count("all"); n != 1 {
		t.Errorf("a restart with 200 volumes of 60 classes took %d requests, want 1", n)
	}
}

// What a read brings after the watch has told of a change is old.
func TestAReadThatIsOvertakenIsNotKept(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	r := newRig(t)
	for i := range 52 {
		r.put("ns", fmt.Sprintf("c%d", i), nil)
	}
	for i := range 51 {
		r.Use(fmt.Sprint(i), "ns", fmt.Sprintf("c%d", i))
	}
	r.run()
	r.awaitKept("ns", "c50")
	r.with(func() {
		r.refuse = func(w http.ResponseWriter, _ *http.Request, verb string) bool {
			if verb == "get" {
				close(arrived)
				<-release
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, `{"kind":"SecretProviderClass","apiVersion":"secrets-store.csi.x-k8s.io/v1","metadata":{"namespace":"ns","name":"c51","generation":1}}`)
			}
			return verb == "get"
		}
	})
	r.Use("51", "ns", "c51")
	read := make(chan error)
	go func() { _, err := r.Get(context.Background(), "ns", "c51"); read <- err }()
	<-arrived
	r.put("ns", "c51", nil)
	r.awaitKept("ns", "c51")
	close(release)
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	if got := r.get("c51"); got.Generation != 2 {
		t.Errorf("generation %d is kept, want 2", got.Generation)
	}
}

// When a value of the refresh annotation was first seen stays with it, whatever else changes and however often the class is told.
func TestRefreshIsSeenOnce(t *testing.T) {
	var second atomic.Int64
	r := newRig(t, func(_ *server, c *classes.Config) { c.Now = func() time.Time { return time.Unix(second.Add(1), 0) } })
	r.put("ns", "c", nil)
	r.Use("1", "ns", "c")
	r.run()
	r.awaitKept("ns", "c")
	first := r.get("c")
	if first.RefreshChanged {
		t.Error("nothing has changed yet")
	}
	changed := false
	for _, step := range []struct {
		refresh string
		again   bool // the value is the one before
	}{{"", true}, {"a", false}, {"a", true}, {"b", false}} {
		r.put("ns", "c", func(object map[string]any) {
			object["metadata"].(map[string]any)["annotations"] = map[string]any{classes.Refresh: step.refresh}
		})
		generation := first.Generation + 1
		await(t, "the change is told", func() bool { return r.get("c").Generation == generation })
		next := r.get("c")
		if same := next.RefreshSeen.Equal(first.RefreshSeen); same != step.again || next.RefreshSeen.Before(first.RefreshSeen) {
			t.Errorf("%q was seen at %v, the value before at %v", step.refresh, next.RefreshSeen, first.RefreshSeen)
		}
		if changed = changed || !step.again; next.RefreshChanged != changed {
			t.Errorf("%q: changed %v, want %v", step.refresh, next.RefreshChanged, changed)
		}
		first = next
	}
}
