package vault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"keymount/internal/azure/identity"
)

const (
	firstDelay = 800 * time.Millisecond
	maxDelay   = 30 * time.Second
	// maxVaults bounds the vaults that are remembered as throttling although nobody reads from them.
	maxVaults = 256
)

// limits bounds the requests in flight per vault, and spares a vault that throttles: after a 429 nothing is sent to it for
// a while, and then half as much as before at a time, one more with each success. Identities that wait for one vault take
// turns, so that one with hundreds of reads does not keep out one with a single read.
type limits struct {
	most int

	mu     sync.Mutex
	vaults map[string]*limit // by address
}

// A limit is the state of one vault, guarded by limits.mu.
type limit struct {
	users    int // callers between enter and leave, waiting ones included
	inFlight int
	allowed  int
	// turns holds the identities that wait, in order; waiting holds who waits for each.
	turns   []identity.Key
	waiting map[identity.Key][]chan struct{} // closed when its turn has come

	// pausedAt is when the last pause began; a refusal of what was sent before it is no news.
	pausedAt time.Time
	resumeAt time.Time
	pauses   int // in a row, without a success
	timer    *time.Timer
}

func newLimits(most int) *limits { return &limits{most: most, vaults: map[string]*limit{}} }

// enter waits until a request for who may be sent to the vault. Each success must be followed by leave.
func (l *limits) enter(ctx context.Context, vault string, who identity.Key) error {
	l.mu.Lock()
	v := l.of(vault)
	v.users++
	if deadline, ok := ctx.Deadline(); ok && v.resumeAt.After(deadline) {
		left := time.Until(v.resumeAt)
		l.release(vault, v)
		l.mu.Unlock()
		return paused{left}
	}
	turn := make(chan struct{})
	if len(v.waiting[who]) == 0 {
		v.turns = append(v.turns, who)
	}
	v.waiting[who] = append(v.waiting[who], turn)
	l.dispatch(v)
	l.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-turn: // it came while we gave up
		v.inFlight--
		l.dispatch(v)
	default:
		v.withdraw(who, turn)
	}
	l.release(vault, v)
	return ctx.Err()
}

// paused says that a vault wants to be left alone for longer than the caller can wait.
type paused struct{ left time.Duration }

func (p paused) Error() string { return fmt.Sprintf("the vault asked for a pause of %v", p.left) }

// NonRetriable marks the error for the SDK's retry policy.
func (paused) NonRetriable() {}

// verdict is what a request says about how much more the vault can take.
type verdict int

const (
	neither verdict = iota
	served
	refused
)

// leave ends a request that was sent at the time sent. after is how long the vault asked to be left alone, 0 if it did not.
func (l *limits) leave(vault string, outcome verdict, sent time.Time, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.vaults[vault]
	v.inFlight--
	switch outcome {
	case served:
		if sent.After(v.pausedAt) {
			v.pauses = 0
		}
		v.allowed = min(v.allowed+1, l.most)
	case refused:
		v.pause(sent, after)
	}
	l.dispatch(v)
	l.release(vault, v)
}

func (v *limit) pause(sent time.Time, after time.Duration) {
	now := time.Now()
	if sent.Before(v.pausedAt) && after == 0 {
		return
	}
	if !sent.Before(v.pausedAt) {
		v.allowed = max(v.allowed/2, 1)
		v.pausedAt = now
		v.pauses++
	}
	if after == 0 {
		after = backoff(v.pauses)
	}
	if resume := now.Add(min(after, maxDelay)); resume.After(v.resumeAt) {
		v.resumeAt = resume
	}
}

// backoff doubles from firstDelay up to maxDelay, with a quarter of jitter either way.
func backoff(n int) time.Duration {
	d := maxDelay
	if n < 7 {
		d = min(firstDelay<<max(n-1, 0), maxDelay)
	}
	return d*3/4 + rand.N(d/2)
}

// dispatch lets go whoever may go now. l.mu is held.
func (l *limits) dispatch(v *limit) {
	if len(v.turns) == 0 {
		return
	}
	if left := time.Until(v.resumeAt); left > 0 {
		if v.timer == nil {
			v.timer = time.AfterFunc(left, func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				v.timer = nil
				l.dispatch(v)
			})
		}
		return
	}
	for v.inFlight < v.allowed && len(v.turns) > 0 {
		who := v.turns[0]
		v.turns = v.turns[1:]
		queue := v.waiting[who]
		close(queue[0])
		v.inFlight++
		if len(queue) == 1 {
			delete(v.waiting, who)
			continue
		}
		v.waiting[who] = queue[1:]
		v.turns = append(v.turns, who)
	}
}

func (v *limit) withdraw(who identity.Key, turn chan struct{}) {
	queue := v.waiting[who]
	for i, t := range queue {
		if t == turn {
			queue = append(queue[:i], queue[i+1:]...)
			break
		}
	}
	if len(queue) > 0 {
		v.waiting[who] = queue
		return
	}
	delete(v.waiting, who)
	for i, k := range v.turns {
		if k == who {
			v.turns = append(v.turns[:i], v.turns[i+1:]...)
			return
		}
	}
}

// of returns the state of a vault. l.mu is held.
func (l *limits) of(vault string) *limit {
	if v, ok := l.vaults[vault]; ok {
		return v
	}
	if len(l.vaults) >= maxVaults {
		for other, v := range l.vaults {
			if v.users == 0 {
				delete(l.vaults, other)
			}
		}
	}
	v := &limit{allowed: l.most, waiting: map[identity.Key][]chan struct{}{}}
	l.vaults[vault] = v
	return v
}

// release forgets a vault that nobody uses and of which there is nothing to remember. l.mu is held.
func (l *limits) release(vault string, v *limit) {
	v.users--
	if v.users == 0 && v.allowed == l.most && !v.resumeAt.After(time.Now()) {
		delete(l.vaults, vault)
	}
}
