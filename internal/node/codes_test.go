package node_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

// Final codes exactly if nothing is left, whatever the cause.
func TestCodes(t *testing.T) {
	t.Attr("conformance", "2.6/final-when-undone")
	t.Attr("conformance", "2.6/non-final-when-left")
	t.Attr("conformance", "12.8/final-codes")
	kinds := map[provider.Kind]codes.Code{
		provider.Invalid: codes.InvalidArgument, provider.NotFound: codes.NotFound, provider.Denied: codes.PermissionDenied,
		provider.Throttled: codes.FailedPrecondition, provider.Unavailable: codes.FailedPrecondition, provider.Internal: codes.Internal,
	}
	isFinal := func(c codes.Code) bool {
		switch c {
		case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
			return false
		}
		return true
	}
	w := newWorld(t)
	for kind, want := range kinds {
		cause := &provider.Error{Kind: kind, Message: "reading secret x", Remedy: "do y"}
		for state, wanted := range map[publish.State]codes.Code{publish.Undone: want, publish.Left: codes.Unavailable, publish.Kept: codes.OK} {
			t.Run(fmt.Sprint(kind, " ", state), func(t *testing.T) {
				w.outcome = func(publish.Volume) error { return stateError(state, cause) }
				err := w.publish(nil)
				got := status.Code(err)
				if got != wanted || (state == publish.Left) == isFinal(got) && state != publish.Kept {
					t.Errorf("got %v, want %v", got, wanted)
				}
				if err != nil && !strings.Contains(err.Error(), "reading secret x (do y)") {
					t.Errorf("text %v", err)
				}
			})
		}
	}
	for cause, want := range map[error]codes.Code{context.DeadlineExceeded: codes.DeadlineExceeded, context.Canceled: codes.Canceled} {
		w.outcome = func(publish.Volume) error {
			return stateError(publish.Left, &provider.Error{Kind: provider.Unavailable, Message: "waiting", Cause: cause})
		}
		if got := status.Code(w.publish(nil)); got != want {
			t.Errorf("%v gives %v", cause, got)
		}
	}
	w.outcome = func(publish.Volume) error {
		return stateError(publish.Undone, errors.New(strings.Repeat("ä\xff", 1<<20)))
	}
	if err := w.publish(nil); status.Code(err) != codes.Internal || len(err.Error()) > 5000 {
		t.Errorf("a text of megabytes gives %d bytes of %v", len(err.Error()), status.Code(err))
	}
}

func TestClassErrors(t *testing.T) {
	t.Attr("conformance", "12.6/class-not-found")
	t.Attr("conformance", "12.6/class-incomplete")
	w := newWorld(t)
	w.lookup = &provider.Error{Kind: provider.NotFound, Message: `failed to get secretproviderclass shop/db, error: not found`}
	if err := w.publish(nil); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "failed to get secretproviderclass shop/db, error: not found") {
		t.Errorf("got %v", err)
	}
	w.lookup = nil
	w.class.Provider = ""
	if err := w.publish(nil); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "provider not set in shop/db") {
		t.Errorf("got %v", err)
	}
	w.class.Provider, w.class.Parameters = "azure", nil
	if err := w.publish(nil); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "parameters not set in shop/db") {
		t.Errorf("got %v", err)
	}
}

// A defect ends one call, not the process, and is not final: something may be left.
func TestPanic(t *testing.T) {
	w := newWorld(t)
	w.outcome = func(publish.Volume) error { panic("hunter2") }
	err := w.publish(nil)
	if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "hunter2") || strings.Contains(w.log.String(), "hunter2") {
		t.Errorf("got %v", err)
	}
}
