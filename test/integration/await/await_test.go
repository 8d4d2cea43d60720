//go:build integration && linux

package await

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var errNotYet = errors.New("not yet")

func TestAsksUntilTheAnswerIsGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		err := For(t.Context(), "the third answer", func(context.Context) error {
			if asked++; asked < 3 {
				return errNotYet
			}
			return nil
		})
		if err != nil || asked != 3 {
			t.Errorf("asked %d times, %v", asked, err)
		}
	})
}

func TestAsksAnewWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		err := For(t.Context(), "an answer", func(ctx context.Context) error {
			if asked++; asked == 1 {
				<-ctx.Done() // lost by the server
				return ctx.Err()
			}
			return nil
		})
		if err != nil || asked != 2 {
			t.Errorf("asked %d times, %v", asked, err)
		}
	})
}

func TestGivesUp(t *testing.T) {
	gone := errors.New("gone")
	for _, tc := range []struct {
		name   string
		ctx    func(context.Context) (context.Context, context.CancelFunc)
		answer error
		want   []error
		after  time.Duration
	}{
		{"after the bound", context.WithCancel, errNotYet, []error{errNotYet, context.DeadlineExceeded}, Bound},
		{"with the caller's deadline", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 3*Bound)
		}, errNotYet, []error{errNotYet, context.DeadlineExceeded}, 3 * Bound},
		{"at once", context.WithCancel, Never(gone), []error{gone}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := tc.ctx(t.Context())
				defer cancel()
				start := time.Now()
				err := For(ctx, "godot", func(context.Context) error { return tc.answer })
				for _, want := range tc.want {
					if !errors.Is(err, want) || !strings.Contains(err.Error(), "godot") {
						t.Errorf("got %v, want %v", err, want)
					}
				}
				if took := time.Since(start); took != tc.after {
					t.Errorf("gave up after %v, want %v", took, tc.after)
				}
			})
		})
	}
}
