package cli

import (
	"context"
	"math/rand/v2"
	"os"
	"time"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

const (
	defaultInterval = 30 * time.Second
	// minInterval keeps a slip of the hand from becoming a load on the vault.
	minInterval = time.Second
	// maxBackoff bounds the wait after failures in a row, and what a source may ask for by Retry-After.
	maxBackoff = 5 * time.Minute
)

// A watcher refreshes a folder at an interval, and when asked to.
type watcher struct {
	interval time.Duration
	refresh  func(context.Context) (publish.Result, error)
	// changed and failed tell the user; an error of theirs ends the watch, since nobody listens any more. asked says that
	// the user waits for an answer even if nothing changed; recovered that the refresh before failed.
	changed func(res *publish.Result, asked, recovered bool) error
	failed  func(err error, next time.Duration) error
	// now holds a value when the user wants a refresh at once.
	now <-chan os.Signal
}

// run returns nil when ctx ends, which is how a watch is meant to end.
func (w *watcher) run(ctx context.Context) error {
	failures := 0
	delay := w.interval
	for {
		asked, stopped := w.wait(ctx, delay)
		if stopped {
			return nil
		}
		res, err := w.refresh(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			failures++
			delay = backoff(w.interval, failures, err)
			err = w.failed(err, delay)
		} else {
			err = w.changed(&res, asked, failures > 0)
			failures, delay = 0, w.interval
		}
		if err != nil {
			return err
		}
	}
}

// wait returns after the delay and up to a tenth more, so that many watchers do not stay in step.
func (w *watcher) wait(ctx context.Context, delay time.Duration) (asked, stopped bool) {
	timer := time.NewTimer(delay + rand.N(delay/10+1))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false, true
	case <-w.now:
		return true, false
	case <-timer.C:
		return false, false
	}
}

// backoff doubles the interval with every failure in a row, and waits at least as long as the source asked for.
func backoff(interval time.Duration, failures int, err error) time.Duration {
	limit := max(interval, maxBackoff)
	delay := interval
	for range failures {
		if delay *= 2; delay >= limit {
			delay = limit
			break
		}
	}
	for _, e := range provider.ErrorsOf(err) {
		delay = max(delay, min(e.RetryAfter, limit))
	}
	return delay
}
