package podstatus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keymount/internal/podstatus"
	"keymount/internal/provider"
	"keymount/internal/publish"
)

func TestAMissingRightIsAnErrorUntilItIsThere(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		b.breaks(func(string, string) int { return 403 })
		v := volumeOf("web", "db", "v")
		err := b.RecordStatus(t.Context(), v, first("a=1"))
		if provider.KindOf(err) != provider.Denied || !strings.Contains(err.Error(), "pod shop/web for class db") ||
			!strings.Contains(err.Error(), "secretproviderclasses-role") {
			t.Errorf("got %v", err)
		}
		b.asked()
		time.Sleep(time.Hour)
		if n := len(b.asked()); n < 25 || n > 40 {
			t.Errorf("%d attempts in an hour", n)
		}
		// What is written in the end is what holds then.
		if err := b.RecordStatus(t.Context(), v, holds("a=2")); err == nil {
			t.Error("no error")
		}
		if err := b.RecordFailure(t.Context(), v, errors.New("x")); err == nil {
			t.Error("no error")
		}
		b.breaks(nil)
		time.Sleep(3 * time.Minute)
		if c := b.object("web-shop-db", "status"); !strings.Contains(c, `"version":"2"`) || !strings.Contains(c, `"False"`) {
			t.Errorf("status %s", c)
		}
		if n := strings.Count(b.logs.String(), "\n"); n != 1 {
			t.Errorf("%d lines:\n%s", n, b.logs)
		}
		b.asked()
		time.Sleep(time.Hour)
		b.wantAsked()
	})
}

// Objects go before pods do when a namespace is removed, and no new ones can be made.
func TestANamespaceThatIsBeingRemovedIsNoFailure(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		v := volumeOf("web", "db", "v")
		b.record(v, first("a=1"))
		b.mu.Lock()
		b.objects, b.ending = map[string]map[string]any{}, true
		b.mu.Unlock()
		b.record(v, holds("a=2"))
		b.asked()
		time.Sleep(time.Hour)
		b.wantAsked() // nothing is tried again
	})
}

func TestAVolumeThatIsGoneIsNotWritten(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		b.breaks(func(string, string) int { return 500 })
		v := volumeOf("web", "db", "v")
		if err := b.RecordStatus(t.Context(), v, first("a=1")); provider.KindOf(err) != provider.Unavailable {
			t.Errorf("got %v", err)
		}
		b.Forget(v.ID)
		b.breaks(nil)
		b.asked()
		time.Sleep(time.Hour)
		b.wantAsked()
	})
}

func TestAServerThatHangsCostsFiveSeconds(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		b.breaks(func(string, string) int { return -1 })
		v, began := volumeOf("web", "db", "v"), time.Now()
		err := b.RecordStatus(t.Context(), v, first("a=1"))
		if took := time.Since(began); provider.KindOf(err) != provider.Unavailable || took != 5*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		time.Sleep(2 * time.Second) // Run has the volume now
		began = time.Now()
		if err = b.RecordStatus(t.Context(), v, holds("a=2")); err == nil || time.Since(began) > 5*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		b.breaks(nil)
		time.Sleep(5 * time.Minute)
		equal(t, "objects", b.object("web-shop-db", "status", "objects"), `[{"id":"a","version":"2"}]`)
	})
}

// A volume that is refreshed often during an outage is written as soon after it as one that is not.
func TestRefreshesDoNotPutOffARepeat(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		b.breaks(func(string, string) int { return 500 })
		v := volumeOf("web", "db", "v")
		b.RecordStatus(t.Context(), v, first("a=1"))
		for i := range 40 { // 20 s
			time.Sleep(500 * time.Millisecond)
			b.RecordStatus(t.Context(), v, holds(fmt.Sprintf("a=%d", i+2)))
		}
		b.breaks(nil)
		time.Sleep(20 * time.Second) // the fifth repeat is 31 to 38 s after the first failure
		equal(t, "objects", b.object("web-shop-db", "status", "objects"), `[{"id":"a","version":"41"}]`)
	})
}

// A write whose answer was lost was a write all the same: it is found, and not repeated.
func TestALostAnswer(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		lost := false
		b.server.after = func(method, _ string) bool {
			cut := method == "POST" && !lost
			lost = lost || cut
			return cut
		}
		v := volumeOf("web", "db", "v")
		err := b.RecordStatus(t.Context(), v, first("a=1"))
		if provider.KindOf(err) != provider.Unavailable {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Minute)
		b.wantAsked("POST web-shop-db", "POST web-shop-db", "GET web-shop-db")
		b.record(v, holds("a=1"))
		b.wantAsked()
	})
}

func TestWhatCannotBeWritten(t *testing.T) {
	huge := make([]string, 20)
	for i := range huge {
		huge[i] = fmt.Sprintf("%d=%s", i, strings.Repeat("v", 60_000))
	}
	for _, tc := range []struct {
		name   string
		change func(v *publish.Volume, r *publish.Result)
	}{
		{"no pod name", func(v *publish.Volume, _ *publish.Result) { v.Request.Pod.Name = "" }},
		{"no namespace", func(v *publish.Volume, _ *publish.Result) { v.Request.Pod.Namespace = "" }},
		{"no uid", func(v *publish.Volume, _ *publish.Result) { v.Request.Pod.UID = "" }},
		{"no class", func(v *publish.Volume, _ *publish.Result) { v.Class.Name = "" }},
		{"a namespace that leaves its place", func(v *publish.Volume, _ *publish.Result) { v.Request.Pod.Namespace = "../x" }},
		{"a pod that leaves its place", func(v *publish.Volume, _ *publish.Result) { v.Request.Pod.Name = "../x" }},
		{"a class that leaves its place", func(v *publish.Volume, _ *publish.Result) { v.Class.Name = "x/../y" }},
		{"too large", func(_ *publish.Volume, r *publish.Result) { *r = *first(huge...) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, func(t *testing.T, b *bench) {
				v, r := volumeOf("web", "db", "v"), first("a=1")
				tc.change(v, r)
				if err := b.RecordStatus(t.Context(), v, r); provider.KindOf(err) != provider.Invalid || len(err.Error()) > 500 {
					t.Errorf("got %v", err)
				}
				b.wantAsked()
			})
		})
	}
	t.Run("names of others", func(t *testing.T) {
		in(t, func(t *testing.T, b *bench) {
			v := volumeOf("web", "db", "v")
			b.record(v, holds("a=1"))
			name := own(t, b)
			b.restart()
			const theirs = `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"x","uid":"x"}]},"status":{"podName":"x"}}`
			b.put("web-shop-db", theirs)
			b.put(name, theirs)
			if err := b.RecordStatus(t.Context(), v, holds("a=1")); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v", err)
			}
			if owner := b.object(name, "status", "podName"); owner != `"x"` {
				t.Errorf("took the object of %s", owner)
			}
		})
	})
}

// Volumes do not wait for each other, and a volume does not wait behind its own retry.
func TestManyVolumesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		const volumes = 40
		var all sync.WaitGroup
		for i := range volumes {
			all.Go(func() {
				v := volumeOf(fmt.Sprintf("web%d", i), "db", "v")
				b.record(v, first("a=1"))
				b.recordFailure(v, errors.New("x"))
				b.record(v, holds("a=2"))
			})
		}
		all.Wait()
		if names := b.names(); len(names) != volumes {
			t.Errorf("%d objects", len(names))
		}
		if asked := b.asked(); len(asked) != 3*volumes {
			t.Errorf("%d requests", len(asked))
		}
	})
}

// What the client's own limit holds up is the API server being away, not a fault.
func TestTheClientsOwnLimit(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		api := b.config()
		api.QPS, api.Burst = 0.1, 1
		r, err := podstatus.New(podstatus.Config{API: api})
		if err != nil {
			t.Fatal(err)
		}
		b.Recorder = r
		b.run()
		b.record(volumeOf("web", "db", "v"), first("a=1"))
		err = b.RecordStatus(t.Context(), volumeOf("web2", "db", "v"), first("a=1"))
		if provider.KindOf(err) != provider.Unavailable {
			t.Errorf("got %v", err)
		}
		time.Sleep(5 * time.Minute)
		if names := b.names(); len(names) != 2 {
			t.Errorf("names %v", names)
		}
	})
}

// Status codes and what they mean; Events leave out what is only an outage.
func TestKinds(t *testing.T) {
	for code, want := range map[int]provider.Kind{401: provider.Denied, 403: provider.Denied, 404: provider.NotFound, 400: provider.Invalid,
		422: provider.Invalid, 413: provider.Invalid, 405: provider.Internal, 500: provider.Unavailable, 503: provider.Unavailable, 409: provider.Unavailable} {
		in(t, func(t *testing.T, b *bench) {
			b.breaks(func(string, string) int { return code })
			if err := b.RecordStatus(t.Context(), volumeOf("web", "db", "v"), first("a=1")); provider.KindOf(err) != want || err == nil {
				t.Errorf("%d: %v %v", code, provider.KindOf(err), err)
			}
		})
	}
}

func TestACallerThatLeavesIsNotHeldUp(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.breaks(func(string, string) int { return -1 })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := b.RecordStatus(ctx, volumeOf("web", "db", "v"), first("a=1")); err == nil || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// A state that came while an older one was being written, and whose caller left, is written too.
func TestANewerStateIsNotLostBehindAnOlderOne(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		v := volumeOf("web", "db", "v")
		b.record(v, first("a=1"))
		b.breaks(func(string, string) int { time.Sleep(3 * time.Second); return 0 })
		var older sync.WaitGroup
		older.Go(func() { b.record(v, holds("a=2")) })
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.RecordStatus(ctx, v, holds("a=3")); err == nil {
			t.Error("no error")
		}
		older.Wait()
		time.Sleep(time.Minute)
		equal(t, "objects", b.object("web-shop-db", "status", "objects"), `[{"id":"a","version":"3"}]`)
	})
}

// A node may have a name that is no label value; its volumes have a status all the same.
func TestANodeWithALongName(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		said := &logs{}
		r, err := podstatus.New(podstatus.Config{API: b.config(), NodeID: strings.Repeat("n", 64), Log: slog.New(slog.NewTextHandler(said, nil))})
		if err != nil {
			t.Fatal(err)
		}
		b.Recorder = r
		b.record(volumeOf("web", "db", "v"), first("a=1"))
		equal(t, "labels", b.object("web-shop-db", "metadata", "labels"), `{"internal.secrets-store.csi.k8s.io/node-name":""}`)
		if !strings.Contains(said.String(), "no label value") {
			t.Errorf("said %q", said)
		}
	})
}

func TestConflictsAreReadAgain(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		v := volumeOf("web", "db", "v")
		b.record(v, first("a=1"))
		b.mu.Lock()
		o := b.objects["web-shop-db"]
		o["metadata"].(map[string]any)["annotations"] = map[string]any{"theirs": "kept"}
		b.store("web-shop-db", o)
		b.mu.Unlock()
		b.asked()
		b.record(v, holds("a=2"))
		b.wantAsked("PATCH web-shop-db", "GET web-shop-db", "PATCH web-shop-db")
		equal(t, "theirs", b.object("web-shop-db", "metadata", "annotations"), `{"theirs":"kept"}`)

		b.breaks(func(method, _ string) int { // somebody writes all the time
			if method == "PATCH" {
				return 409
			}
			return 0
		})
		b.asked()
		err := b.RecordStatus(t.Context(), v, holds("a=3"))
		if asked := b.asked(); err == nil || len(asked) > 8 {
			t.Errorf("asked %v: %v", asked, err)
		}
		b.breaks(nil)
		b.record(v, holds("a=3"))
		equal(t, "objects", b.object("web-shop-db", "status", "objects"), `[{"id":"a","version":"3"}]`)
	})
}

// What a plugin of the cluster makes of an object is not undone at each refresh.
func TestAdmissionThatChangesObjects(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.admits = func(o map[string]any) {
			o["metadata"].(map[string]any)["labels"] = map[string]any{"theirs": "only"}
			o["status"].(map[string]any)["objects"] = []any{}
		}
		v := volumeOf("web", "db", "v")
		b.record(v, first("a=1"))
		b.record(v, holds("a=1"))
		b.record(v, holds("a=1"))
		b.wantAsked("POST web-shop-db")
	})
}

// What others put into an object's conditions stays, within reason: it is kept in memory for as long as the volume is there.
func TestOthersConditionsAreKeptWithinReason(t *testing.T) {
	for name, tc := range map[string]struct {
		size int
		kept bool
	}{"some": {1 << 10, true}, "too much": {1 << 20, false}} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, b *bench) {
				v := volumeOf("web", "db", "v")
				b.record(v, first("a=1"))
				b.put("web-shop-db", strings.Replace(b.object("web-shop-db"), `"conditions":[`,
					`"conditions":[{"type":"Theirs","message":"`+strings.Repeat("x", tc.size)+`"},`, 1))
				b.recordFailure(v, errors.New("down"))
				got := b.object("web-shop-db", "status", "conditions")
				if strings.Contains(got, "Theirs") != tc.kept || !strings.Contains(got, `"False"`) {
					t.Errorf("conditions %.300s", got)
				}
			})
		})
	}
}
