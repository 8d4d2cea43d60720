//go:build integration && linux

// Package await is the one form in which integration tests wait for another process: a socket that appears, a server that
// gets ready, a condition that a controller sets. Such a process offers nothing to wait on, so it is asked again and again,
// within a bound. The interval decides no outcome. What a test can wait on directly it must not wait for here.
//
// It imports nothing but the standard library. Its functions may be called concurrently.
package await

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Bound is how long For waits where the context has no deadline: long enough for a machine that is busy with other tests.
const Bound = time.Minute

const (
	interval = 25 * time.Millisecond
	// One question may take this long and is then asked anew, so that one that is lost does not use up the bound.
	perAnswer = 3 * time.Second
)

// For asks until ask returns nil, and then returns nil. It gives up, with ask's last answer, when ctx ends, after Bound
// where ctx has no deadline, or at once when ask returns a Never. The context that ask is given bounds one answer.
func For(ctx context.Context, what string, ask func(ctx context.Context) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, Bound)
		defer cancel()
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		err := once(ctx, ask)
		if err == nil {
			return nil
		}
		if never := (neverError{}); errors.As(err, &never) {
			return fmt.Errorf("waiting for %s: %w", what, never.error)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; the last answer was: %w", what, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

func once(ctx context.Context, ask func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, perAnswer)
	defer cancel()
	return ask(ctx)
}

// Never marks an answer that no waiting will change.
func Never(err error) error {
	if err == nil {
		return nil
	}
	return neverError{err}
}

type neverError struct{ error }

func (e neverError) Unwrap() error { return e.error }
