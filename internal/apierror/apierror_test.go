package apierror_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"keymount/internal/apierror"
	"keymount/internal/provider"
)

func TestKind(t *testing.T) {
	what := schema.GroupResource{Resource: "things"}
	for _, tc := range []struct {
		name string
		err  error
		want provider.Kind
	}{
		{"not found", apierrors.NewNotFound(what, "x"), provider.NotFound},
		{"forbidden", apierrors.NewForbidden(what, "x", errors.New("no")), provider.Denied},
		{"unauthorized", apierrors.NewUnauthorized("no"), provider.Denied},
		{"throttled", apierrors.NewTooManyRequests("slow", 7), provider.Throttled},
		{"bad request", apierrors.NewBadRequest("no"), provider.Internal},
		{"conflict", apierrors.NewConflict(what, "x", errors.New("no")), provider.Unavailable},
		{"a failure of the server", apierrors.NewInternalError(errors.New("no")), provider.Unavailable},
		{"a timeout of the server", apierrors.NewServerTimeout(what, "get", 1), provider.Unavailable},
		{"not supported", apierrors.NewMethodNotSupported(what, "get"), provider.Internal},
		{"wrapped", fmt.Errorf("reading: %w", apierrors.NewNotFound(what, "x")), provider.NotFound},
		{"no answer", context.DeadlineExceeded, provider.Unavailable},
		{"the client's own limit", errors.New("client rate limiter Wait returned an error"), provider.Unavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := apierror.Kind(tc.err); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
	if got := apierror.RetryAfter(apierrors.NewTooManyRequests("slow", 7)); got != 7*time.Second {
		t.Errorf("got %v", got)
	}
	if got := apierror.RetryAfter(errors.New("x")); got != 0 {
		t.Errorf("got %v", got)
	}
}
