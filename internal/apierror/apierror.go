// Package apierror says what an error of a client of the API server means, in the terms of the provider contract. It imports
// that contract and the API machinery's errors, no client, and may be called from any number of goroutines.
package apierror

import (
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keymount/internal/provider"
)

// Kind is what an error means for who asked. One that is no answer of the API server is its being away, as far as anybody can
// tell: client-go's own rate limit, for one, ends with an error without a type.
func Kind(err error) provider.Kind {
	var status apierrors.APIStatus
	switch {
	case !errors.As(err, &status):
		return provider.Unavailable
	case apierrors.IsNotFound(err):
		return provider.NotFound
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return provider.Denied
	case apierrors.IsTooManyRequests(err):
		return provider.Throttled
	case apierrors.IsConflict(err), status.Status().Code >= 500:
		return provider.Unavailable
	}
	return provider.Internal
}

// RetryAfter is how long the API server asked to be left alone, 0 if it did not say.
func RetryAfter(err error) time.Duration {
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		return time.Duration(seconds) * time.Second
	}
	return 0
}
