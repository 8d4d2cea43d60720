package identity

import (
	"context"
	"fmt"
	"sync"
	"time"

	"keymount/internal/provider"
)

const (
	// maxSessions bounds the identities of which access tokens are kept; a node has hundreds of pods at most.
	maxSessions = 4096
	// fetchTime bounds one fetch with all its tries.
	fetchTime = time.Minute
	// lastMoment is how long before its end a token is no longer handed out: the read that uses it takes time too.
	lastMoment = 10 * time.Second
	// earliest is how long before its end a token is renewed at the earliest.
	earliest = 5 * time.Minute
	// renewPause is the least time between two fetches for one identity that an early renewal or a rejection asks for.
	renewPause = 10 * time.Second
	// sweepEvery is how often tokens that have ended are forgotten.
	sweepEvery = 5 * time.Minute
)

// tokens keeps the access tokens of this process, one per key, each until it ends.
type tokens struct {
	now func() time.Time

	mu       sync.Mutex
	sessions map[Key]*session
	sweeping bool

	counts counts
}

// A session is what is known of one identity.
type session struct {
	token     AccessToken // zero before the first success and after a rejection
	renewAt   time.Time
	renewedAt time.Time // when the last renewal that was not needed by the clock began
	flight    *flight   // the fetch that is going on, or nil
}

// A flight is one fetch of a token. It belongs to no caller, so that no caller's end fails the others.
type flight struct {
	by    *Credential
	done  chan struct{} // closed after token and err are set
	token AccessToken
	err   error
}

func newTokens(cfg Config) *tokens {
	now := cfg.Now
	if now == nil {
		now = time.Now
	}
	return &tokens{now: now, sessions: map[Key]*session{}}
}

// get returns a token for key, which c has proven to be its own.
func (t *tokens) get(ctx context.Context, key Key, c *Credential) (AccessToken, error) {
	for {
		t.mu.Lock()
		s := t.session(key)
		now := t.now()
		if now.Before(s.token.Expires.Add(-lastMoment)) {
			token := s.token
			if !now.Before(s.renewAt) && s.flight == nil && now.Sub(s.renewedAt) >= renewPause {
				s.renewedAt = now
				t.start(key, s, c) // nobody waits: the old token serves while this one is fetched
			}
			t.mu.Unlock()
			return token, nil
		}
		f := s.flight
		if f == nil {
			f = t.start(key, s, c)
		}
		t.mu.Unlock()
		if token, err, settled := f.wait(ctx, key, c); settled {
			return token, err
		}
	}
}

// wait returns what the fetch gave; settled is false if it failed for a reason that is its credential's and not c's.
func (f *flight) wait(ctx context.Context, key Key, c *Credential) (token AccessToken, err error, settled bool) {
	select {
	case <-f.done:
	case <-ctx.Done():
		return AccessToken{}, &provider.Error{Kind: provider.Unavailable, Cause: ctx.Err(),
			Message: fmt.Sprintf("waiting for an access token for %s: %v", key, ctx.Err())}, true
	}
	if f.err == nil || c.SameProof(f.by) || !ConcernsCredential(f.err) {
		return f.token, f.err, true
	}
	return AccessToken{}, nil, false
}

// ConcernsCredential says whether after this failure another credential of the same identity may fare better.
func ConcernsCredential(err error) bool {
	switch provider.KindOf(err) {
	case provider.Denied, provider.Invalid, provider.NotFound:
		return true
	}
	return false
}

// start begins a fetch. t.mu is held.
func (t *tokens) start(key Key, s *session, c *Credential) *flight {
	f := &flight{by: c, done: make(chan struct{})}
	s.flight = f
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), fetchTime)
		defer cancel()
		f.token, f.err = c.guardedFetch(ctx)
		t.counts.add(f.err)
		t.mu.Lock()
		s.flight = nil
		if f.err == nil {
			t.keep(s, f.token)
		} else if s.token == (AccessToken{}) {
			delete(t.sessions, key) // those who wait hold f; who comes later makes a new one
		}
		t.mu.Unlock()
		close(f.done)
	}()
	return f
}

// guardedFetch turns a panic, for which no caller's goroutine could answer, into an error without its text.
func (c *Credential) guardedFetch(ctx context.Context) (token AccessToken, err error) {
	defer func() {
		if recover() != nil {
			token, err = AccessToken{}, &provider.Error{Kind: provider.Internal,
				Message: "getting an access token for " + c.String() + ": the provider has a defect"}
		}
	}()
	return c.fetch(ctx)
}

// keep stores a token that was just fetched. t.mu is held.
func (t *tokens) keep(s *session, token AccessToken) {
	if token.Expires.Before(s.token.Expires) {
		return
	}
	s.token = token
	life := token.Expires.Sub(t.now())
	s.renewAt = token.Expires.Add(-min(earliest, life/5))
}

// alive says whether a token was fetched under key that has not ended.
func (t *tokens) alive(key Key) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sessions[key]
	return ok && t.now().Before(s.token.Expires)
}

// adopt gives a token that was fetched under a private key to the identity that it turned out to be. Where a renewal has
// begun it does not: the token may be the one that a vault has just rejected.
func (t *tokens) adopt(key Key, token AccessToken) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.session(key)
	if s.token == (AccessToken{}) && s.renewedAt.IsZero() {
		t.keep(s, token)
	}
}

// renew returns a token other than rejected if one can be had, see Credential.Renew.
func (t *tokens) renew(ctx context.Context, key Key, c *Credential, rejected AccessToken) (AccessToken, error) {
	t.mu.Lock()
	s := t.session(key)
	if s.token.Value != rejected.Value {
		t.mu.Unlock()
		return t.get(ctx, key, c)
	}
	f := s.flight
	if f == nil {
		if t.now().Sub(s.renewedAt) < renewPause {
			t.mu.Unlock()
			return rejected, nil
		}
		s.renewedAt = t.now()
		f = t.start(key, s, c)
	}
	s.token = AccessToken{} // so that whoever comes waits for the flight
	t.mu.Unlock()
	// This very flight, which may have ended by now: get would find nothing of one that failed, and begin another.
	if token, err, settled := f.wait(ctx, key, c); settled {
		return token, err
	}
	return t.get(ctx, key, c)
}

// session returns the session of key, making room for it if need be. t.mu is held.
func (t *tokens) session(key Key) *session {
	if s, ok := t.sessions[key]; ok {
		return s
	}
	if len(t.sessions) >= maxSessions {
		t.makeRoom()
	}
	s := &session{}
	t.sessions[key] = s
	if !t.sweeping {
		t.sweeping = true
		time.AfterFunc(sweepEvery, t.sweep)
	}
	return s
}

// makeRoom forgets what has ended and, if that is nothing, what ends first. t.mu is held.
func (t *tokens) makeRoom() {
	t.forgetEnded()
	if len(t.sessions) < maxSessions {
		return
	}
	var first Key
	var found *session
	for key, s := range t.sessions {
		if s.flight == nil && (found == nil || s.token.Expires.Before(found.token.Expires)) {
			first, found = key, s
		}
	}
	delete(t.sessions, first)
}

func (t *tokens) forgetEnded() {
	now := t.now()
	for key, s := range t.sessions {
		if s.flight == nil && !now.Before(s.token.Expires) {
			delete(t.sessions, key)
		}
	}
}

// sweep runs from a timer for as long as there is anything to forget.
func (t *tokens) sweep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetEnded()
	t.sweeping = len(t.sessions) > 0
	if t.sweeping {
		time.AfterFunc(sweepEvery, t.sweep)
	}
}
