package cli

import (
	"context"
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

// tape is a watcher whose refreshes end as a test says, and what it told the user. All its times are those of synctest.
type tape struct {
	*watcher
	started time.Time
	results []error // one per refresh, nil for a good one; afterwards all are good
	at      []time.Duration
	said    []string
	signals chan os.Signal
}

func newTape(interval time.Duration, results ...error) *tape {
	tp := &tape{results: results, started: time.Now(), signals: make(chan os.Signal, 1)}
	tp.watcher = &watcher{
		interval: interval,
		now:      tp.signals,
		refresh: func(context.Context) (publish.Result, error) {
			n := len(tp.at)
			tp.at = append(tp.at, time.Since(tp.started))
			if n < len(tp.results) {
				return publish.Result{}, tp.results[n]
			}
			return publish.Result{}, nil
		},
		changed: func(_ *publish.Result, asked, recovered bool) error {
			said := "ok"
			if asked {
				said += " asked"
			}
			if recovered {
				said += " recovered"
			}
			tp.said = append(tp.said, said)
			return nil
		},
		failed: func(err error, next time.Duration) error {
			tp.said = append(tp.said, err.Error()+" "+next.String())
			return nil
		},
	}
	return tp
}

// within reports whether a refresh came after d, or up to a tenth later.
func within(got, d time.Duration) bool { return got >= d && got <= d+d/10+1 }

func TestWatchBacksOffAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("down")
		tp := newTape(30*time.Second, nil, down, down)
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
		defer cancel()
		if err := tp.run(ctx); err != nil {
			t.Fatalf("a watch that is ended is no failure, got %v", err)
		}
		want := []string{"ok", "down 1m0s", "down 2m0s", "ok recovered", "ok"}
		if len(tp.said) < len(want) || !slices.Equal(tp.said[:len(want)], want) {
			t.Fatalf("said %q, want %q", tp.said, want)
		}
		gaps := []time.Duration{30 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 30 * time.Second}
		last := time.Duration(0)
		for i, gap := range gaps {
			if got := tp.at[i] - last; !within(got, gap) {
				t.Errorf("refresh %d came %v after the one before, want %v and at most a tenth more", i, got, gap)
			}
			last = tp.at[i]
		}
	})
}

func TestWatchRefreshesWhenAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tp := newTape(time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error)
		go func() { done <- tp.run(ctx) }()
		tp.signals <- syscall.SIGHUP
		synctest.Wait()
		if !slices.Equal(tp.said, []string{"ok asked"}) || tp.at[0] != 0 {
			t.Errorf("said %q at %v, want one answer at once", tp.said, tp.at)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A refresh that the end of the watch interrupts is nothing to report.
func TestWatchEndsQuietlyDuringARefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tp := newTape(time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		tp.refresh = func(ctx context.Context) (publish.Result, error) {
			cancel()
			return publish.Result{}, ctx.Err()
		}
		if err := tp.run(ctx); err != nil || len(tp.said) > 0 {
			t.Errorf("got %v, said %q", err, tp.said)
		}
	})
}

// When nobody can hear what is said (a terminal that is gone), the watch ends.
func TestWatchEndsWhenNobodyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("gone")
		tp := newTape(time.Minute)
		tp.changed = func(*publish.Result, bool, bool) error { return gone }
		if err := tp.run(t.Context()); !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
	})
}

func TestBackoff(t *testing.T) {
	throttled := func(d time.Duration) error { return &provider.Error{Kind: provider.Throttled, RetryAfter: d} }
	for _, tc := range []struct {
		name     string
		interval time.Duration
		failures int
		err      error
		want     time.Duration
	}{
		{"first", 30 * time.Second, 1, errors.New("x"), time.Minute},
		{"bounded", 30 * time.Second, 60, errors.New("x"), maxBackoff},
		{"never below a long interval", time.Hour, 3, errors.New("x"), time.Hour},
		{"as long as the source asks", 30 * time.Second, 1, throttled(2 * time.Minute), 2 * time.Minute},
		{"but not for ever", 30 * time.Second, 1, throttled(24 * time.Hour), maxBackoff},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := backoff(tc.interval, tc.failures, tc.err); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}
