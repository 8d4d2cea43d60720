package publish

import (
	"context"
	"fmt"
	"sync"

	"keymount/internal/provider"
)

// calls puts the calls for one volume in a line: one works, the others wait for their turn or go away. A volume is known by
// its target here, because that is what two calls would mount on twice, whatever ids they come with.
type calls struct {
	mu       sync.Mutex
	byTarget map[string]*line // only volumes with a call under way
}

type line struct {
	turn    chan struct{}      // holds one value while a call works
	members map[*call]struct{} // all that work or wait
	whole   bool               // the call that works found the volume whole, so all it can do is refresh
}

// A call is one Publish, Refresh or Unpublish under way.
type call struct {
	all    *calls
	target string
	line   *line
	op     Operation
	cancel context.CancelCauseFunc
	works  bool
}

// enter adds a call to the line of its volume. The context ends when another call cancels this one.
func (cs *calls) enter(ctx context.Context, target string, op Operation) (context.Context, *call) {
	ctx, cancel := context.WithCancelCause(ctx)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	l := cs.byTarget[target]
	if l == nil {
		l = &line{turn: make(chan struct{}, 1), members: map[*call]struct{}{}}
		cs.byTarget[target] = l
	}
	c := &call{all: cs, target: target, line: l, op: op, cancel: cancel}
	l.members[c] = struct{}{}
	return ctx, c
}

// try takes the turn if nobody has it.
func (c *call) try() bool {
	select {
	case c.line.turn <- struct{}{}:
		c.works = true
	default:
	}
	return c.works
}

// wait takes the turn when it comes.
func (c *call) wait(ctx context.Context) error {
	select {
	case c.line.turn <- struct{}{}:
		c.works = true
		return nil
	case <-ctx.Done():
		return &provider.Error{Kind: provider.Unavailable, Cause: ctx.Err(),
			Message: fmt.Sprintf("waiting for another call on the same volume: %v", context.Cause(ctx))}
	}
}

// leave gives the turn back, if the call has it, and ends its context.
func (c *call) leave() {
	c.cancel(nil)
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	delete(c.line.members, c)
	if len(c.line.members) == 0 {
		delete(c.all.byTarget, c.target)
	}
	if c.works {
		c.line.whole = false
		<-c.line.turn
	}
}

// foundWhole notes, for calls that come meanwhile, that the volume was whole when this call began.
func (c *call) foundWhole() {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	c.line.whole = true
}

// refreshUnderWay tells whether the call that works found the volume whole, and nobody is about to remove it.
func (c *call) refreshUnderWay() bool {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	for m := range c.line.members {
		if m.op == Unpublishing {
			return false
		}
	}
	return c.line.whole
}

// cancelOthers ends what is being done, or waits to be done, to make or refresh the volume. Other removals go on.
func (c *call) cancelOthers(cause error) {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	for m := range c.line.members {
		if m.op != Unpublishing {
			m.cancel(cause)
		}
	}
}

// places bounds the fetches in flight per provider.
type places struct {
	limit      int
	mu         sync.Mutex
	byProvider map[string]chan struct{} // by name; only names that the lookup knows, so their number is bounded
}

// take waits for a place at the provider; release gives it back.
func (ps *places) take(ctx context.Context, name string) (release func(), err error) {
	ps.mu.Lock()
	place := ps.byProvider[name]
	if place == nil {
		place = make(chan struct{}, ps.limit)
		ps.byProvider[name] = place
	}
	ps.mu.Unlock()
	select {
	case place <- struct{}{}:
		return func() { <-place }, nil
	case <-ctx.Done():
		return nil, &provider.Error{Kind: provider.Unavailable, Cause: ctx.Err(),
			Message: fmt.Sprintf("waiting for one of the %d calls to provider %q to end: %v", ps.limit, name, context.Cause(ctx)),
			Remedy:  "look at why the provider is slow"}
	}
}
