package events_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"keymount/internal/events"
	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/volume"
)

func TestAnEventOfAFailedMount(t *testing.T) {
	t.Attr("conformance", "10.1/16-percent-in-events")
	in(t, func(t *testing.T, b *bench) {
		b.tell(fails(provider.Denied, "secret/a", "secret/b"))
		b.wantAsked("POST")
		e := b.last()
		const message = "SecretProviderClass db: reading secret/a in vault kv: 100%d of it (grant it); reading secret/b in vault kv: 100%d of it (grant it)"
		if e.Message != message || e.Reason != events.FailedToMountSecrets || e.Type != "Warning" || e.Count != 1 {
			t.Errorf("Event %+v", e)
		}
		if o := e.InvolvedObject; o.Kind != "Pod" || o.APIVersion != "v1" || o.Namespace != "shop" || o.Name != "web" || o.UID != "uid-web" {
			t.Errorf("on %+v", o)
		}
		if e.Source.Component != "secrets-store-csi-driver" || e.Source.Host != "node-1" || e.Namespace != "shop" ||
			!e.FirstTimestamp.Equal(&e.LastTimestamp) || e.FirstTimestamp.Year() != 2000 || !strings.HasPrefix(e.Name, "web.") {
			t.Errorf("Event %+v", e)
		}
	})
}

func TestWhatIsToldAndWhatNot(t *testing.T) {
	t.Attr("conformance", "12.6/events-of-rotation")
	t.Attr("conformance", "10.1/15-failed-rotation-is-visible")
	unfinished := func(errs ...error) func(*publish.Outcome) {
		return func(o *publish.Outcome) { o.Result.Unfinished = errs }
	}
	change := func(o *publish.Outcome) {
		o.Result.Change = volume.Change{Added: []string{"new"}, Updated: []string{"a", "b"}, Removed: []string{"old"}}
	}
	op := func(op publish.Operation) func(*publish.Outcome) {
		return func(o *publish.Outcome) { o.Operation = op }
	}
	err := func(err error) func(*publish.Outcome) { return func(o *publish.Outcome) { o.Err = err } }
	type does = []func(*publish.Outcome)
	for _, tc := range []struct {
		name           string
		outcome        does
		reason, has, n string // n: Events, "" for none
	}{
		{"first mount", does{fetched}, "", "", ""},
		{"nothing due", does{held}, "", "", ""},
		{"busy", does{held, func(o *publish.Outcome) { o.Result.Busy = true }}, "", "", ""},
		{"refresh without change", does{held, fetched}, "", "", ""},
		{"first mount, all files are new", does{fetched, change}, "", "", ""},
		{"refresh with change", does{held, fetched, change}, events.MountRotationComplete, "SecretProviderClass db: updated a, b; added new; removed old", "1"},
		{"failed refresh", does{held, op(publish.Refreshing), fails(provider.Throttled, "a")}, events.MountRotationFailed,
			"holds what it held: reading a in vault", "1"},
		{"failed republish", does{held, fails(provider.Throttled, "a")}, events.MountRotationFailed, "", "1"},
		{"failure of nothing in particular", does{err(errors.New("%s"))}, events.FailedToMountSecrets, "SecretProviderClass db: %s", "1"},
		{"a deadline", does{err(fmt.Errorf("asking: %w", context.DeadlineExceeded))}, events.FailedToMountSecrets, "", "1"},
		{"broken off", does{err(fmt.Errorf("asking: %w", context.Canceled))}, "", "", ""},
		{"refresh of what is not mounted", does{op(publish.Refreshing), err(publish.ErrNotMounted)}, "", "", ""},
		{"unmount that failed", does{op(publish.Unpublishing), err(errors.New("x"))}, "", "", ""},
		{"status not written", does{fetched, unfinished(&provider.Error{Kind: provider.Denied, Message: "writing the status", Remedy: "grant it"})},
			events.MountUnfinished, "SecretProviderClass db: writing the status (grant it)", "1"},
		{"status not written, API server away", does{fetched, unfinished(&provider.Error{Kind: provider.Unavailable, Message: "x"})}, "", "", ""},
		{"old files not removed", does{held, fetched, unfinished(errors.New("removing x"), &provider.Error{Kind: provider.Throttled})},
			events.MountUnfinished, "removing x", "1"},
		{"refresh failed, and its record", does{held, fails(provider.Denied, "a"), unfinished(errors.New("disk full"))}, events.MountUnfinished, "disk full", "2"},
		{"no pod", does{fails(provider.Denied, "a"), func(o *publish.Outcome) { o.Volume.Request.Pod = provider.Pod{} }}, "", "", ""},
		{"a namespace that leaves its place", does{fails(provider.Denied, "a"), func(o *publish.Outcome) { o.Volume.Request.Pod.Namespace = "../x" }}, "", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, func(t *testing.T, b *bench) {
				b.tell(tc.outcome...)
				if n := len(strings.Fields(b.asked())); fmt.Sprint(n) != tc.n && (n != 0 || tc.n != "") {
					t.Fatalf("%d Events, want %q", n, tc.n)
				}
				if tc.reason == "" {
					return
				}
				e := b.last()
				if e.Reason != tc.reason || !strings.Contains(e.Message, tc.has) || (e.Type == "Normal") != (tc.reason == events.MountRotationComplete) {
					t.Errorf("Event %s %s %q", e.Type, e.Reason, e.Message)
				}
			})
		})
	}
}

func TestAFailureThatLastsIsToldRarely(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		request := 0
		minute := func(kind provider.Kind, objects ...string) {
			request++
			b.tell(held, fails(kind, objects...), func(o *publish.Outcome) { // the texts differ each time
				var errs provider.Errors
				errors.As(o.Err, &errs)
				errs[0].Message += fmt.Sprint(" request ", request)
			})
			time.Sleep(time.Minute)
		}
		for range 61 {
			minute(provider.Denied, "a")
		}
		b.wantAsked("POST PATCH PATCH PATCH PATCH PATCH PATCH")
		if e := b.last(); e.Count != 7 || !strings.Contains(e.Message, "request 61") || !e.LastTimestamp.After(e.FirstTimestamp.Time) {
			t.Errorf("Event %+v", e)
		}

		minute(provider.Denied, "b") // something else failed
		minute(provider.NotFound, "b")
		b.wantAsked("POST POST")
		for range 4 { // and then something else all the time
			minute(provider.Denied, fmt.Sprint(request))
		}
		b.wantAsked("")

		b.tell(held, fetched) // it went well in between
		minute(provider.Denied, "a")
		b.wantAsked("POST")

		b.mu.Lock()
		clear(b.events) // Events live for an hour
		b.mu.Unlock()
		time.Sleep(10 * time.Minute)
		minute(provider.Denied, "a")
		b.wantAsked("PATCH POST")

		unfinished := func(o *publish.Outcome) { o.Result.Unfinished = []error{errors.New("x")} }
		b.tell(held, fetched, unfinished)
		b.tell(held, fetched, unfinished)
		b.wantAsked("POST")
		b.tell(held, fetched) // all is written now
		b.tell(held, fetched, unfinished)
		b.wantAsked("POST")

		for range 30 { // it comes and goes
			minute(provider.Denied, "a")
			b.tell(held, fetched)
			b.tell(held, fails(provider.Denied, "a"))
			b.tell(held, fetched)
		}
		if n := len(strings.Fields(b.asked())); n > 42 {
			t.Errorf("%d Events in 30 minutes", n)
		}
	})
}

func TestAnUnmountedVolumeIsForgotten(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.tell(fails(provider.Denied, "a"))
		b.tell(fails(provider.Denied, "a"))
		b.wantAsked("POST")
		b.Observe(t.Context(), publish.Outcome{Operation: publish.Unpublishing, Volume: &publish.Volume{ID: "csi-1"}})
		b.tell(fails(provider.Denied, "a"))
		b.wantAsked("POST")
		// Another volume's failure is its own.
		b.tell(fails(provider.Denied, "a"), func(o *publish.Outcome) { o.Volume.ID = "csi-2" })
		b.wantAsked("POST")
		time.Sleep(2 * time.Hour) // and one that never came to be is forgotten by itself
		b.tell(fails(provider.Denied, "a"))
		b.wantAsked("POST")
	})
}

// What a provider wrote itself is seen to change by its versions.
func TestSelfWrittenContent(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		holds := func(versions ...provider.ObjectVersion) {
			b.tell(held, fetched, func(o *publish.Outcome) { o.Result.SelfWritten, o.Result.Versions = true, versions })
		}
		one, two := provider.ObjectVersion{ID: "a", Version: "1"}, provider.ObjectVersion{ID: "b", Version: "1"}
		holds(one, two) // of before a restart
		holds(two, one)
		b.wantAsked("")
		holds(one)
		b.wantAsked("POST")
		if e := b.last(); e.Reason != events.MountRotationComplete || !strings.Contains(e.Message, "versions") {
			t.Errorf("Event %+v", e)
		}
		holds(two)
		b.wantAsked("PATCH")
		b.Observe(t.Context(), publish.Outcome{Operation: publish.Unpublishing, Volume: &publish.Volume{ID: "csi-1"}})
		b.tell(held, fetched, func(o *publish.Outcome) { o.Result.SelfWritten, o.Result.NewVersions = true, true }) // the registry knew
		b.wantAsked("POST")
	})
}

func TestMessagesAreBounded(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		var objects []string
		for i := range 200 {
			objects = append(objects, fmt.Sprintf("secret/s%03d", i))
		}
		b.tell(fails(provider.NotFound, objects...))
		m := b.last().Message
		if len(m) > 1024 || !strings.Contains(m, "secret/s000 in vault") || !strings.Contains(m, "and secret/s0") || !strings.HasSuffix(m, " more") {
			t.Errorf("%d bytes: %s", len(m), m)
		}
		b.tell(func(o *publish.Outcome) { // what is wrong with a class is of no object
			o.Volume.ID = "csi-4"
			long := &provider.Error{Message: "parameters" + strings.Repeat(".", 400)}
			o.Err = provider.Errors{long, {Object: "secret/named", Message: long.Message}, long, long}
		})
		if m = b.last().Message; !strings.HasSuffix(m, "...; and secret/named; and 2 more") {
			t.Errorf("%d bytes: %s", len(m), m)
		}
		b.tell(held, func(o *publish.Outcome) {
			o.Err = &provider.Error{Object: strings.Repeat("ö", 900), Message: "\xff\x00\r\n" + strings.Repeat("ü", 5000)}
			o.Volume.Class.Name = strings.Repeat("c", 253)
		})
		if m = b.last().Message; len(m) > 1024 || !utf8.ValidString(m) || strings.ContainsAny(m, "\x00\r\n") {
			t.Errorf("%d bytes: %q", len(m), m)
		}
		long := make([]string, 3000)
		for i := range long {
			long[i] = strings.Repeat("f", 255)
		}
		b.tell(held, fetched, func(o *publish.Outcome) { o.Result.Change.Updated = long; o.Result.Change.Added = long })
		if m = b.last().Message; len(m) > 1024 || !strings.Contains(m, "and 2999 more; added f") {
			t.Errorf("%d bytes: %q", len(m), m)
		}
		b.tell(fails(provider.Denied, "a"), func(o *publish.Outcome) {
			o.Volume.ID, o.Volume.Request.Pod.Name = "csi-3", strings.Repeat("p", 219)+"."+strings.Repeat("q", 33)
		})
		if e := b.last(); len(e.Name) > 253 || strings.Contains(e.Name, "..") || e.InvolvedObject.Name[219] != '.' {
			t.Errorf("name %s", e.Name)
		}
	})
}

// What to do stands at the end of a failure: an Event that has no room for all of it keeps that.
func TestALongFailureKeepsItsRemedy(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		remedy := "subject " + strings.Repeat("s", 200) + ", letter by letter"
		for _, size := range []int{500, 5000} {
			for _, objects := range [][]string{{"secret/a"}, {"secret/a", "secret/b"}} {
				b.tell(fails(provider.Denied, objects...), func(o *publish.Outcome) {
					o.Volume.ID = fmt.Sprint("csi-", size, len(objects))
					for _, e := range provider.ErrorsOf(o.Err) {
						e.Message, e.Remedy = "reading "+e.Object+strings.Repeat(" ü", size/3), remedy
					}
				})
				m := b.last().Message
				if len(m) > 1024 || !strings.Contains(m, "reading secret/a ü") || !strings.Contains(m, remedy+")") || !utf8.ValidString(m) {
					t.Errorf("%d bytes: %s", len(m), m)
				}
				if cut := strings.Contains(m, " ... "); cut != (size > 500 || len(objects) > 1) {
					t.Errorf("cut %v: %s", cut, m)
				}
			}
		}
	})
}

func TestAMissingRightIsSaidOnce(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.answer(403)
		for range 3 {
			b.tell(fails(provider.Denied, "a"))
			time.Sleep(11 * time.Minute)
		}
		b.wantAsked("POST POST POST")
		if log := b.logged(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "create and patch on events") || b.Lost() != 3 {
			t.Errorf("lost %d: %s", b.Lost(), log)
		}
		b.answer(0)
		b.tell(fails(provider.Denied, "a"))
		b.wantAsked("POST")
		if log := b.logged(); strings.Count(log, "\n") != 2 || !strings.Contains(log, "lost=3") {
			t.Errorf("%s", log)
		}
		b.answer(404) // the namespace is gone
		b.tell(held, fails(provider.Denied, "a"))
		synctest.Wait()
		if log := b.logged(); strings.Count(log, "\n") != 2 {
			t.Errorf("%s", log)
		}
	})
}

func TestAnOutage(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.answer(503)
		b.tell(fails(provider.Denied, "a"))
		time.Sleep(5 * time.Second)
		b.answer(0)
		time.Sleep(time.Minute)
		if e := b.last(); e.FirstTimestamp.Second() != 0 || b.Lost() != 0 {
			t.Errorf("lost %d, Event %+v", b.Lost(), e)
		}

		b.answer(-1)
		for i := range 1000 { // nobody waits
			began := time.Now()
			b.tell(fails(provider.Denied, "a"), func(o *publish.Outcome) { o.Volume.ID = fmt.Sprint(i) })
			if took := time.Since(began); took > 0 {
				t.Fatalf("waited for %v", took)
			}
		}
		synctest.Wait()
		if log := b.logged(); strings.Count(log, "\n") != 1 || b.Lost() < 700 {
			t.Errorf("lost %d: %s", b.Lost(), log)
		}
		b.answer(0)
		time.Sleep(time.Minute)
		b.asked()
		dropped := func(o *publish.Outcome) { o.Volume.ID = "999" }
		b.tell(fails(provider.Denied, "a"), dropped) // it was not told yet
		b.tell(fails(provider.Denied, "a"), dropped)
		b.wantAsked("POST")

		b.answer(-1)
		for i := range 100 {
			b.tell(held, fails(provider.Denied, "a"), func(o *publish.Outcome) { o.Volume.ID = fmt.Sprint(i) })
		}
		began := time.Now()
		b.stop()
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("stopped after %v", took)
		}
	})
}

func TestWhatWaitsIsSentAtTheEnd(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.answer(503)
		for i := range 20 {
			b.tell(fails(provider.Denied, "a"), func(o *publish.Outcome) { o.Volume.ID = fmt.Sprint(i) })
		}
		time.Sleep(time.Second)
		b.answer(0)
		b.stop()
		if n := len(b.events); n != 20 || b.Lost() != 0 {
			t.Errorf("%d Events, lost %d", n, b.Lost())
		}
		for i := range 10 { // also when it ends at once
			b.tell(held, fails(provider.Denied, "a"), func(o *publish.Outcome) { o.Volume.ID = fmt.Sprint(i) })
			b.run()
			b.stop()
		}
		if n := len(b.events); n != 30 {
			t.Errorf("%d Events", n)
		}
	})
}

// An Event whose answer was lost is not there twice.
func TestALostAnswer(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.mu.Lock()
		b.cut = true
		b.mu.Unlock()
		b.tell(fails(provider.Denied, "a"))
		time.Sleep(time.Minute)
		b.wantAsked("POST POST")
		if len(b.events) != 1 || b.Lost() != 0 {
			t.Errorf("%d Events, lost %d", len(b.events), b.Lost())
		}
	})
}

func TestManyVolumesAtOnce(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		var all sync.WaitGroup
		for i := range 50 {
			id := func(o *publish.Outcome) { o.Volume.ID = fmt.Sprint(i) }
			all.Go(func() {
				b.tell(fails(provider.Denied, "a"), id)
				b.tell(fetched, id)
				b.tell(held, fails(provider.Denied, "a"), id)
				b.Observe(t.Context(), publish.Outcome{Operation: publish.Unpublishing, Volume: &publish.Volume{ID: fmt.Sprint(i)}})
			})
		}
		all.Wait()
		if n := len(strings.Fields(b.asked())); n != 100 || b.Lost() != 0 {
			t.Errorf("%d Events, lost %d", n, b.Lost())
		}
	})
}
