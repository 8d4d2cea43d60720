package publish_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/volume/registry"
)

// When a whole volume is refreshed by a Publish, told by what happened since its last success.
func TestDue(t *testing.T) {
	t.Attr("conformance", "10.1/2-interval-is-a-floor")
	minute := publish.Due{Every: time.Minute}
	for _, tc := range []struct {
		name  string
		first publish.Due // at the first mount
		later time.Duration
		then  publish.Due
		want  bool
	}{
		{"no interval", publish.Due{}, 24 * time.Hour, publish.Due{}, false},
		{"no interval, but a mark", publish.Due{}, time.Hour, publish.Due{Mark: "now"}, false},
		{"within the interval", minute, 59 * time.Second, minute, false},
		{"at the interval", minute, time.Minute, minute, true},
		{"the interval has become shorter", publish.Due{Every: time.Hour}, 2 * time.Minute, minute, true},
		{"the interval has become longer", minute, 2 * time.Minute, publish.Due{Every: time.Hour}, false},
		{"a mark from the beginning", publish.Due{Every: time.Minute, Mark: "a"}, time.Second, publish.Due{Every: time.Minute, Mark: "a"}, false},
		{"a new mark", minute, time.Second, publish.Due{Every: time.Minute, Mark: "a"}, true},
		{"another mark", publish.Due{Every: time.Minute, Mark: "a"}, time.Second, publish.Due{Every: time.Minute, Mark: "b"}, true},
		{"a mark taken away", publish.Due{Every: time.Minute, Mark: "a"}, time.Second, minute, true},
		{"the clock was put back", minute, -time.Hour, minute, true},
		{"the clock was put forward", minute, 10 * 365 * 24 * time.Hour, minute, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t)
			b.v.Due = tc.first
			b.mustPublish()
			b.skew, b.v.Due = tc.later, tc.then
			if res := b.mustPublish(); res.Fetched != tc.want {
				t.Fatalf("fetched %v, want %v", res.Fetched, tc.want)
			}
			if res := b.mustPublish(); res.Fetched {
				t.Error("fetched again at once")
			}
		})
	}
}

// A refresh that the class asks for must not be served by what was read before the wish: its author has changed something. All others may be.
func TestAWishIsServedByNothingOlder(t *testing.T) {
	b := newBench(t)
	seen := time.Now()
	var asked []time.Time
	b.provider = fetchFunc(func(_ context.Context, req *provider.Request) (*provider.Bundle, error) {
		asked = append(asked, req.NotBefore)
		return content("v1", "a"), nil
	})
	for _, step := range []struct {
		later time.Duration
		mark  string
	}{{0, "a"}, {time.Second, "b"}, {time.Hour, "b"}} { // the first mount, a wish, and when the interval is over
		b.skew, b.v.Due = step.later, publish.Due{Every: time.Minute, Mark: step.mark, MarkSeen: seen}
		b.mustPublish()
	}
	if want := []time.Time{{}, seen, {}}; !slices.Equal(asked, want) {
		t.Errorf("asked for nothing before %v, want %v", asked, want)
	}
}

// A pod that starts after the wish has it fulfilled by its first mount, which therefore needs what is as new. Where nobody asked for anything, mounts
// share as ever: else those of a node that starts would not.
func TestAFirstMountFulfilsAWish(t *testing.T) {
	for _, changed := range []bool{true, false} {
		b := newBench(t)
		var asked time.Time
		b.provider = fetchFunc(func(_ context.Context, req *provider.Request) (*provider.Bundle, error) {
			asked = req.NotBefore
			return content("v1", "a"), nil
		})
		seen := time.Now()
		b.v.Due = publish.Due{Every: time.Minute, Mark: "a", MarkSeen: seen, MarkChanged: changed}
		b.mustPublish()
		if asked.Equal(seen) != changed || asked.IsZero() == changed {
			t.Errorf("changed %v: asked for nothing before %v", changed, asked)
		}
	}
}

// After a failure the volume rests, longer from failure to failure, and no longer than its interval.
func TestPauseAfterFailures(t *testing.T) {
	b := newBench(t)
	b.v.Due = publish.Due{Every: time.Minute}
	b.mustPublish()
	b.skew = time.Minute
	failure := &provider.Error{Kind: provider.Unavailable, Message: "down"}
	b.fail(failure)
	for i, pause := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute} {
		_, err := b.Publish(t.Context(), b.v)
		b.wantState(err, publish.Kept)
		b.v.Due.Mark += "x" // a wish to refresh now does not cut the pause short
		b.skew += pause - time.Second
		if res := b.mustPublish(); res.Fetched || b.fetches != i+2 {
			t.Fatalf("failure %d: asked %d times before %v were over", i+1, b.fetches, pause)
		}
		b.skew += time.Second
	}
	b.wantFiles(v1)

	failure.RetryAfter = time.Hour // a source's wish counts up to the interval
	_, err := b.Publish(t.Context(), b.v)
	b.wantState(err, publish.Kept)
	b.skew += time.Minute
	b.serve(content("v2", "a"))
	if res := b.mustPublish(); !res.Fetched {
		t.Error("not asked again after its interval")
	}
	b.skew += 10 * time.Second
	if res := b.mustPublish(); res.Fetched {
		t.Error("the pause outlived the success")
	}
}

// The pause is measured on the system's clock, which may jump while it lasts.
func TestPauseSurvivesNoJump(t *testing.T) {
	for name, jump := range map[string]time.Duration{"back": -time.Hour, "a little back": -time.Second, "forward": time.Hour} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.v.Due = publish.Due{Every: time.Minute}
			b.mustPublish()
			b.skew = time.Minute
			b.fail(errors.New("down"))
			_, err := b.Publish(t.Context(), b.v)
			b.wantState(err, publish.Kept)
			b.skew += jump
			b.serve(content("v2", "a"))
			if res := b.mustPublish(); !res.Fetched {
				t.Error("a pause that no clock ends")
			}
		})
	}
}

// What a record plans further ahead than any pause lasts was planned by another clock, or for another interval.
func TestPauseBeyondAnyPlan(t *testing.T) {
	far := time.Now().AddDate(100, 0, 0)
	for name, change := range map[string]func(*registry.Record){
		"the next attempt":     func(rec *registry.Record) { rec.NextDue = far },
		"all of it":            func(rec *registry.Record) { rec.NextDue, rec.LastAttempt, rec.LastSuccess = far, far, far },
		"beyond Go's duration": func(rec *registry.Record) { rec.NextDue = far.AddDate(900, 0, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.v.Due = publish.Due{Every: time.Minute}
			b.mustPublish()
			b.skew = time.Minute
			b.fail(errors.New("down"))
			_, err := b.Publish(t.Context(), b.v)
			b.wantState(err, publish.Kept)
			rec, _ := b.cfg.Registry.Get(b.v.ID)
			change(&rec)
			b.must(b.cfg.Registry.Save(rec))
			b.serve(content("v2", "a"))
			if res := b.mustPublish(); !res.Fetched {
				t.Error("it waits for a time that does not come")
			}
			if res := b.mustPublish(); res.Fetched {
				t.Error("fetched again at once")
			}
			b.skew += time.Minute
			if res := b.mustPublish(); !res.Fetched {
				t.Error("not fetched at the next interval")
			}
		})
	}
}

// Without rotation a volume that holds files is left alone, and its class is not even looked up.
func TestOnce(t *testing.T) {
	b := newBench(t)
	resolved := 0
	b.v.Once, b.v.Due = true, publish.Due{Every: time.Minute}
	b.v.Resolve = func(context.Context, *publish.Volume) error { resolved++; return nil }
	b.mustPublish()
	b.skew = time.Hour
	b.must(b.cfg.Registry.Delete(b.v.ID)) // an adopted volume neither
	if res := b.mustPublish(); res.Fetched || b.fetches != 1 || resolved != 1 {
		t.Errorf("%d fetches, %d lookups", b.fetches, resolved)
	}
	b.wantFiles(v1)
}

// What a volume is to hold may be found out late: after it is known whether anything is there.
func TestResolve(t *testing.T) {
	b := newBench(t)
	b.v.Due = publish.Due{Every: time.Minute}
	params := b.v.Request.Parameters
	b.v.Provider, b.v.Request.Parameters = "", nil
	missing := &provider.Error{Kind: provider.NotFound, Message: "failed to get secretproviderclass shop/db, error: not found"}
	b.v.Resolve = func(context.Context, *publish.Volume) error { return missing }
	_, err := b.Publish(t.Context(), b.v)
	b.wantState(err, publish.Undone)
	if !errors.Is(err, missing) {
		t.Errorf("got %v", err)
	}
	b.wantNothing()

	found := func(_ context.Context, v *publish.Volume) error {
		v.Provider, v.Request.Parameters, v.Warnings = "fake", params, []string{"odd"}
		return nil
	}
	b.v.Resolve = found
	if res := b.mustPublish(); !slices.Equal(res.Warnings, []string{"odd"}) {
		t.Errorf("warnings %q", res.Warnings)
	}
	b.wantFiles(v1)
	if rec, _ := b.cfg.Registry.Get(b.v.ID); rec.Provider != "fake" {
		t.Errorf("recorded %+v", rec)
	}

	b.v.Resolve = func(context.Context, *publish.Volume) error { return missing }
	_, err = b.Publish(t.Context(), b.v)
	b.wantState(err, publish.Kept) // the class was deleted: the pods keep what they have
	b.wantFiles(v1)
	if rec, _ := b.cfg.Registry.Get(b.v.ID); rec.Provider != "fake" || rec.LastFailure == nil {
		t.Errorf("recorded %+v", rec)
	}
}

// Only a fetch needs the request to be complete; where nothing is due it is not completed. A failure to do so counts as the
// provider's.
func TestPrepare(t *testing.T) {
	b := newBench(t)
	params, prepared := b.v.Request.Parameters, 0
	b.v.Due = publish.Due{Every: time.Minute}
	b.v.Request.Parameters = nil
	denied := &provider.Error{Kind: provider.Invalid, Message: "the parameters are locked"}
	b.v.Prepare = func(context.Context, *publish.Volume) error { return denied }
	_, err := b.Publish(t.Context(), b.v)
	b.wantState(err, publish.Undone)
	if !errors.Is(err, denied) || b.fetches != 0 {
		t.Errorf("got %v after %d fetches", err, b.fetches)
	}
	b.wantNothing()

	b.v.Prepare = func(_ context.Context, v *publish.Volume) error {
		prepared++
		v.Request.Parameters = params
		return nil
	}
	b.mustPublish()
	b.mustPublish()
	if prepared != 1 || b.fetches != 1 {
		t.Errorf("prepared %d times, fetched %d times; nothing was due the second time", prepared, b.fetches)
	}
	b.skew = time.Minute
	b.mustPublish()
	if _, err := b.Refresh(t.Context(), b.v); err != nil || prepared != 3 || b.fetches != 3 {
		t.Errorf("prepared %d times, fetched %d times: %v", prepared, b.fetches, err)
	}

	b.v.Prepare = nil // nobody says what to ask
	b.skew = 2 * time.Minute
	_, err = b.Publish(t.Context(), b.v)
	b.wantState(err, publish.Kept)
	b.wantFiles(v1)
}

type observer []publish.Outcome

func (o *observer) Observe(_ context.Context, out publish.Outcome) { *o = append(*o, out) }

// Every call is told of once, whatever became of it.
func TestObserver(t *testing.T) {
	seen, status := &observer{}, &recorder{}
	b := newBench(t, func(c *publish.Config) { c.Observer, c.Status = seen, status })
	b.v.Due = publish.Due{Every: time.Minute}
	down := errors.New("down")
	b.fail(down)
	b.Publish(t.Context(), b.v)
	if len(status.failures) != 0 {
		t.Error("a volume that never was has no status")
	}
	b.serve(content("v1", "a"))
	b.mustPublish()
	b.mustPublish()
	b.skew = time.Minute
	b.fail(down)
	status.err = errors.New("no API server")
	b.Publish(t.Context(), b.v)
	b.Unpublish(t.Context(), b.v.ID, b.v.Target)
	b.Unpublish(t.Context(), "", b.v.Target)
	want := []struct {
		op         publish.Operation
		held       bool
		fetched    bool
		failed     bool
		unfinished int
	}{
		{publish.Publishing, false, false, true, 0},
		{publish.Publishing, false, true, false, 0},
		{publish.Publishing, true, false, false, 0},
		{publish.Publishing, true, false, true, 1},
		{publish.Unpublishing, false, false, false, 0},
		{publish.Unpublishing, false, false, true, 0},
	}
	if len(*seen) != len(want) {
		t.Fatalf("%d outcomes, want %d", len(*seen), len(want))
	}
	for i, w := range want {
		o := (*seen)[i]
		if o.Operation != w.op || o.Held != w.held || o.Result.Fetched != w.fetched || (o.Err != nil) != w.failed ||
			len(o.Result.Unfinished) != w.unfinished || o.Volume == nil || o.Took <= 0 {
			t.Errorf("outcome %d is %+v, want %+v", i, o, w)
		}
	}
	if len(status.failures) != 1 || !errors.Is(status.failures[0], down) {
		t.Errorf("told of failures %v", status.failures)
	}
}

// While a first mount is under way the volume is on record, and no longer once it has been undone.
func TestRecordOfAFirstMount(t *testing.T) {
	b := newBench(t)
	recorded := false
	b.provider = selfWriter{func(context.Context, *provider.Request) (*provider.Bundle, error) {
		rec, ok := b.cfg.Registry.Get(b.v.ID)
		recorded = ok && rec.LastSuccess.IsZero() && !rec.LastAttempt.IsZero() && rec.Provider == "fake"
		return nil, errors.New("down")
	}}
	_, err := b.Publish(t.Context(), b.v)
	b.wantState(err, publish.Undone)
	if _, ok := b.cfg.Registry.Get(b.v.ID); !recorded || ok {
		t.Errorf("recorded meanwhile %v, afterwards %v", recorded, ok)
	}
}
