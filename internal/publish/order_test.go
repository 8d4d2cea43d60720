package publish_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keymount/internal/publish"
)

// heard keeps the order in which it is told of calls, and is slow to take in a Publish.
type heard struct {
	mu  sync.Mutex
	all []string
}

func (h *heard) note(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, what)
}

func (h *heard) Observe(_ context.Context, o publish.Outcome) {
	if o.Operation == publish.Publishing {
		time.Sleep(time.Second)
		h.note("publish")
		return
	}
	h.note("unpublish")
}

// Who remembers volumes until they are unpublished must not hear of a Publish after the Unpublish that came behind it.
func TestWhatIsToldOfAVolumeIsInTheOrderOfItsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &heard{}
		b := newBench(t, func(c *publish.Config) { c.Observer = h })
		b.v.Holds = func() {
			time.Sleep(time.Second)
			h.note("holds")
		}
		published := background(func() (publish.Result, error) { return b.Publish(t.Context(), b.v) })
		time.Sleep(time.Millisecond) // the files are there, and nobody knows it yet
		b.must(b.Unpublish(t.Context(), b.v.ID, b.v.Target))
		if o := <-published; o.err != nil {
			t.Errorf("publishing: %v", o.err)
		}
		if want := []string{"holds", "publish", "unpublish"}; !slices.Equal(h.all, want) {
			t.Errorf("told %v, want %v", h.all, want)
		}
		b.wantNothing()
	})
}

// Two calls for one target must not mount on it twice, or one undo what the other has made, whatever ids they come with.
func TestOneTargetHasOneCallAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		g := newGate(answering(content("v1", "a")))
		b.provider = g
		other := b.v
		other.ID = "csi-2"
		first := background(func() (publish.Result, error) { return b.Publish(t.Context(), b.v) })
		<-g.entered
		second := background(func() (publish.Result, error) { return b.Publish(t.Context(), other) })
		synctest.Wait()
		select {
		case <-g.entered:
			t.Error("both are at work")
		default:
		}
		close(g.proceed)
		if o := <-first; o.err != nil {
			t.Errorf("the first: %v", o.err)
		}
		<-g.entered // the other's own: it has no record of the volume
		if o := <-second; o.err != nil {
			t.Errorf("the second: %v", o.err)
		}
		b.wantFiles(map[string]string{"a": "a v1"})
	})
}
