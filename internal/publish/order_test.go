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
