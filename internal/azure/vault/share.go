package vault

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"keymount/internal/azure/identity"
	"keymount/internal/provider"
)

const (
	// maxShared and maxSharedBytes bound the finished reads that are kept for those who ask next. What is beyond is not
	// kept, which costs requests and nothing else.
	maxShared      = 4096
	maxSharedBytes = 32 << 20
)

// shares makes equal reads of one identity one read.
type shares struct {
	now      func() time.Time
	shareFor time.Duration

	mu    sync.Mutex
	reads map[shareKey]*sharedRead
	hits  atomic.Uint64 // calls that another's read served
	// kept and bytes count the finished reads in the map.
	kept, bytes int
}

// A shareKey is everything on which the answer to a read depends, and who asks for it.
type shareKey struct {
	who  identity.Key
	what object
}

// A sharedRead is one read and those who wait for it. Its fields are guarded by shares.mu until done is closed; after that
// sent, value and err do not change.
type sharedRead struct {
	by      *identity.Credential
	cancel  context.CancelFunc
	waiters int
	done    chan struct{}
	ended   bool
	// sent is when the last try left, zero while it waits for its turn: what it will answer is then still to come.
	sent time.Time
	// trouble is why the last try failed, for those whose patience ends before the read does; may be nil.
	trouble *provider.Error

	value any
	size  int
	err   error
}

func newShares(now func() time.Time, shareFor time.Duration) *shares {
	return &shares{now: now, shareFor: shareFor, reads: map[shareKey]*sharedRead{}}
}

// A Window is when the reads of one caller began: which may serve him, and which did. Its methods may be called from any number of
// goroutines.
type Window struct {
	// NotBefore keeps out reads that began before it. It does not change any more once reads are made.
	NotBefore time.Time

	mu     sync.Mutex
	oldest time.Time
}

// Oldest returns when the oldest of the reads began that served so far, zero if none did.
func (w *Window) Oldest() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.oldest
}

func (w *Window) served(began time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.oldest.IsZero() || began.Before(w.oldest) {
		w.oldest = began
	}
}

type windowKey struct{}

// Within returns a context whose reads are those of a window. Who reads does not depend on it, and neither does what; so it is no argument of
// every method.
func Within(ctx context.Context, w *Window) context.Context {
	return context.WithValue(ctx, windowKey{}, w)
}

func windowOf(ctx context.Context) *Window {
	if w, ok := ctx.Value(windowKey{}).(*Window); ok {
		return w
	}
	return &Window{}
}

// fetchFunc does the read, telling r about each try.
type fetchFunc func(ctx context.Context, r *sharedRead) (value any, size int, err error)

// do returns what fetch returned, for this call or for one that may share with it. fetch runs on a context of its own,
// which ends when nobody waits any more.
func (s *shares) do(ctx context.Context, key shareKey, by *identity.Credential, fetch fetchFunc) (any, error) {
	asked := s.now()
	window := windowOf(ctx)
	for {
		s.mu.Lock()
		r, joined := s.reads[key], true
		if r == nil || !s.serves(r, asked, window.NotBefore) {
			r, joined = s.start(key, by, fetch), false
		} else if r.ended {
			s.mu.Unlock()
			s.hits.Add(1)
			window.served(r.sent)
			return r.value, nil
		}
		r.waiters++
		s.mu.Unlock()

		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, s.abandon(key, r, ctx.Err())
		}
		var own credentialError
		if errors.As(r.err, &own) {
			if !r.by.SameProof(by) {
				continue // it was the other's credential that failed
			}
			return nil, own.error
		}
		if r.err != nil {
			return nil, r.err
		}
		if joined {
			s.hits.Add(1)
		}
		window.served(r.sent)
		return r.value, nil
	}
}

// serves says whether a read answers a call that came at the time asked, and wants nothing that was read before another. s.mu is held.
func (s *shares) serves(r *sharedRead, asked, notBefore time.Time) bool {
	if !r.sent.IsZero() && r.sent.Before(notBefore) {
		return false
	}
	if s.shareFor <= 0 {
		return !r.ended
	}
	return r.sent.IsZero() || asked.Sub(r.sent) <= s.shareFor
}

// start begins a read and lets it replace the one in the map, which goes on for those who wait for it. s.mu is held.
func (s *shares) start(key shareKey, by *identity.Credential, fetch fetchFunc) *sharedRead {
	if old := s.reads[key]; old != nil {
		s.forget(key, old)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &sharedRead{by: by, cancel: cancel, done: make(chan struct{})}
	s.reads[key] = r
	go func() {
		defer cancel()
		value, size, err := guarded(ctx, r, key.what, fetch)
		s.finish(key, r, value, size, err)
	}()
	return r
}

// guarded turns a panic, for which no caller's goroutine could answer, into an error. What was thrown is not repeated: it
// could hold parts of an answer.
func guarded(ctx context.Context, r *sharedRead, o object, fetch fetchFunc) (value any, size int, err error) {
	defer func() {
		if recover() != nil {
			value, size, err = nil, 0, o.failure(provider.Internal, "the provider has a defect that this answer brought out", "", 0)
		}
	}()
	return fetch(ctx, r)
}

func (s *shares) finish(key shareKey, r *sharedRead, value any, size int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.value, r.size, r.err, r.ended = value, size, err, true
	close(r.done)
	if s.reads[key] != r {
		return
	}
	left := s.shareFor - s.now().Sub(r.sent)
	if err != nil || left <= 0 || r.sent.IsZero() || s.kept >= maxShared || s.bytes+size > maxSharedBytes {
		delete(s.reads, key)
		return
	}
	s.kept++
	s.bytes += size
	time.AfterFunc(left+time.Millisecond, func() { // after the last moment at which it serves
		s.mu.Lock()
		defer s.mu.Unlock()
		s.forget(key, r)
	})
}

// forget takes a read out of the map if it is still there. s.mu is held.
func (s *shares) forget(key shareKey, r *sharedRead) {
	if s.reads[key] != r {
		return
	}
	delete(s.reads, key)
	if r.ended {
		s.kept--
		s.bytes -= r.size
	}
}

// abandon is for a caller that waits no longer. The last to leave ends the read.
func (s *shares) abandon(key shareKey, r *sharedRead, why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.waiters--
	if r.waiters == 0 && !r.ended {
		r.cancel()
		s.forget(key, r)
	}
	return interrupted(key.what, r.trouble, why)
}

// sending notes that a try leaves now, and waiting that it came to nothing and the next is to come; fromStart says that
// the next one begins the read anew, not the next page of a list.
func (s *shares) sending(r *sharedRead) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.sent = s.now()
}

func (s *shares) waiting(r *sharedRead, trouble *provider.Error, fromStart bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.trouble = trouble
	if fromStart {
		r.sent = time.Time{}
	}
}

func (s *shares) troubleOf(r *sharedRead) *provider.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.trouble
}
