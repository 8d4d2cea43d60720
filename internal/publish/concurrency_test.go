package publish_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

// gate holds fetches of a provider until the test lets them go.
type gate struct {
	provider.Provider
	entered chan context.Context // one value per fetch that has begun
	proceed chan struct{}        // closed, or one value per fetch
}

func newGate(p provider.Provider) *gate {
	return &gate{p, make(chan context.Context), make(chan struct{})}
}

func (g *gate) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	select {
	case g.entered <- ctx:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the test: %w", ctx.Err())
	}
	select {
	case <-g.proceed:
		return g.Provider.Fetch(ctx, req)
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the test: %w", ctx.Err())
	}
}

type outcome struct {
	res publish.Result
	err error
}

func background(do func() (publish.Result, error)) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		res, err := do()
		done <- outcome{res, err}
	}()
	return done
}

func TestCallsThatFindARefreshAnswerAtOnce(t *testing.T) {
	t.Attr("conformance", "12.8/republish-meets-refresh")
	b := newBench(t)
	b.mustPublish()
	g := newGate(answering(content("v2", "a")))
	b.provider = g
	first := background(func() (publish.Result, error) { return b.Refresh(t.Context(), b.v) })
	<-g.entered
	for name, do := range map[string]func(context.Context, publish.Volume) (publish.Result, error){"republish": b.Publish, "refresh": b.Refresh} {
		if res, err := do(t.Context(), b.v); err != nil || !res.Busy || res.Fetched {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
	close(g.proceed)
	if o := <-first; o.err != nil || !o.res.Fetched {
		t.Errorf("%+v", o)
	}
	b.wantFiles(map[string]string{"a": "a v2"})
}

// While the first mount is under way nothing is there yet, so a second one must not be told that all is well.
func TestAFirstMountIsWaitedFor(t *testing.T) {
	t.Attr("conformance", "10.1/11-concurrent-publishes")
	b := newBench(t)
	g := newGate(answering(content("v1", "a", "sub/b")))
	b.provider = g
	first := background(func() (publish.Result, error) { return b.Publish(t.Context(), b.v) })
	<-g.entered

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Publish(ctx, b.v)
	b.wantState(err, publish.Left)

	second := background(func() (publish.Result, error) { return b.Publish(t.Context(), b.v) })
	if res, err := b.Refresh(t.Context(), b.v); err != nil || !res.Busy {
		t.Errorf("a refresh during the first mount: %+v, %v", res, err)
	}
	close(g.proceed)
	if o := <-first; o.err != nil || !o.res.First {
		t.Errorf("first: %+v", o)
	}
	if o := <-second; o.err != nil || o.res.Fetched || o.res.Busy {
		t.Errorf("second: %+v, want: nothing left to do", o)
	}
	b.wantFiles(v1)
}

func TestUnpublishEndsARefresh(t *testing.T) {
	b := newBench(t)
	b.mustPublish()
	g := newGate(answering(content("v2", "a")))
	b.provider = g
	refresh := background(func() (publish.Result, error) { return b.Refresh(t.Context(), b.v) })
	fetching := <-g.entered
	b.must(b.Unpublish(t.Context(), b.v.ID, b.v.Target))
	if fetching.Err() == nil {
		t.Error("the fetch goes on")
	}
	if o := <-refresh; o.err == nil {
		t.Error("the refresh succeeded")
	}
	b.wantNothing()
	if _, ok := b.cfg.Registry.Get(b.v.ID); ok {
		t.Error("the refresh that failed left its record behind")
	}
}

// The volume is still whole, and about to go: a republish is not told that all is well.
func TestARepublishDuringARemovalWaits(t *testing.T) {
	b := newBench(t)
	b.mustPublish()
	entered, proceed := make(chan context.Context), make(chan struct{})
	b.provider = fetchFunc(func(ctx context.Context, _ *provider.Request) (*provider.Bundle, error) {
		entered <- ctx
		<-proceed // which a cancelled call may take a moment to notice
		return nil, ctx.Err()
	})
	refresh := background(func() (publish.Result, error) { return b.Refresh(t.Context(), b.v) })
	fetching := <-entered
	removal := background(func() (publish.Result, error) {
		return publish.Result{}, b.Unpublish(t.Context(), b.v.ID, b.v.Target)
	})
	<-fetching.Done() // the removal has begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Publish(ctx, b.v)
	b.wantState(err, publish.Left)
	close(proceed)
	<-refresh
	if o := <-removal; o.err != nil {
		t.Error(o.err)
	}
	b.wantNothing()
}

// The provider may have read everything when the volume is being removed: nothing is written any more.
func TestNothingIsWrittenAfterTheEnd(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.provider = fetchFunc(func(context.Context, *provider.Request) (*provider.Bundle, error) {
		cancel()
		return content("v1", "a"), nil
	})
	_, err := b.Publish(ctx, b.v)
	b.wantState(err, publish.Undone)
	if !errors.Is(err, context.Canceled) || provider.KindOf(err) != provider.Unavailable {
		t.Errorf("got %v", err)
	}
	b.wantNothing()
}

func TestDeadlineIncludesWaiting(t *testing.T) {
	t.Attr("conformance", "12.8/call-timeout")
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.provider = newGate(nil) // which nobody opens
		started := time.Now()
		first := background(func() (publish.Result, error) { return b.Publish(t.Context(), b.v) })
		synctest.Wait()
		time.Sleep(time.Second)
		second := background(func() (publish.Result, error) { return b.Publish(t.Context(), b.v) })
		o := <-first
		b.wantState(o.err, publish.Undone)
		if took := time.Since(started); took != publish.DefaultDeadline || provider.KindOf(o.err) != provider.Unavailable {
			t.Errorf("the first took %v and ended with %v", took, o.err)
		}
		o = <-second
		b.wantState(o.err, publish.Undone)
		if took := time.Since(started); took != publish.DefaultDeadline+time.Second {
			t.Errorf("the second, which waited for the first, ended after %v with %v", took, o.err)
		}
		b.wantNothing()
	})
}

func TestTheCallersDeadlineCountsIfEarlier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.provider = newGate(nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		started := time.Now()
		if _, err := b.Publish(ctx, b.v); err == nil || time.Since(started) != time.Second {
			t.Errorf("ended after %v with %v", time.Since(started), err)
		}
	})
}

// One provider that hangs takes its own places only.
func TestFetchesAreBoundedPerProvider(t *testing.T) {
	var hung *gate
	good := answering(content("v1", "a"))
	b := newBench(t, func(c *publish.Config) {
		c.Fetches = 2
		c.Provider = func(name string) (provider.Provider, error) {
			if name == "hung" {
				return hung, nil
			}
			return good, nil
		}
	})
	hung = newGate(good)
	volumeOf := func(id, name string) publish.Volume {
		v := b.v
		v.ID, v.Provider, v.Target = id, name, v.Target+id
		return v
	}
	var all []<-chan outcome
	for i := range 5 {
		all = append(all, background(func() (publish.Result, error) {
			return b.Publish(t.Context(), volumeOf(fmt.Sprint(i), "hung"))
		}))
	}
	<-hung.entered
	<-hung.entered
	if _, err := b.Publish(t.Context(), volumeOf("other", "good")); err != nil {
		t.Errorf("another provider's volume: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Publish(ctx, volumeOf("late", "hung"))
	b.wantState(err, publish.Undone)
	if !strings.Contains(err.Error(), `one of the 2 calls to provider "hung"`) {
		t.Errorf("got %v", err)
	}
	go func() {
		for range 3 {
			<-hung.entered
		}
	}()
	close(hung.proceed)
	for _, o := range all {
		if o := <-o; o.err != nil {
			t.Error(o.err)
		}
	}
}

// Kubelet, rotation and removal at once, on a few volumes: no race, and every volume ends as its last call says.
func TestStorm(t *testing.T) {
	storm(t, newBench(t), 4, 60)
}

// storm runs calls from several goroutines per volume; afterwards a Publish and an Unpublish must both do what they say.
func storm(t *testing.T, b *bench, volumes, rounds int) {
	var version atomic.Int64
	var fetching sync.Map // targets
	b.provider = fetchFunc(func(_ context.Context, req *provider.Request) (*provider.Bundle, error) {
		if _, other := fetching.LoadOrStore(req.TargetPath, true); other {
			t.Error("two fetches of one volume at once")
		}
		defer fetching.Delete(req.TargetPath)
		switch n := version.Add(1); n % 5 {
		case 0:
			return nil, &provider.Error{Kind: provider.Unavailable, Message: "down"}
		default:
			return content(fmt.Sprint("v", n), "a", fmt.Sprint("dir/", n%3)), nil
		}
	})
	var all sync.WaitGroup
	for i := range volumes {
		v := b.v
		v.ID = fmt.Sprint("volume-", i)
		v.Target = fmt.Sprint(b.v.Target, "-", i)
		for _, do := range []func(){
			func() { b.Publish(t.Context(), v) },
			func() { b.Publish(t.Context(), v) },
			func() { b.Refresh(t.Context(), v) },
			func() {
				if err := b.Unpublish(t.Context(), v.ID, v.Target); err != nil {
					t.Error(err)
				}
			},
		} {
			all.Go(func() {
				for range rounds {
					do()
				}
			})
		}
	}
	all.Wait()
	b.serve(content("last", "a"))
	for i := range volumes {
		b.v.ID = fmt.Sprint("volume-", i)
		target := b.v.Target
		b.v.Target = fmt.Sprint(target, "-", i)
		b.must(b.Unpublish(t.Context(), b.v.ID, b.v.Target))
		b.wantNothing()
		b.mustPublish()
		b.wantFiles(map[string]string{"a": "a last"})
		b.must(b.Unpublish(t.Context(), b.v.ID, b.v.Target))
		b.wantNothing()
		b.v.Target = target
	}
}
