package classes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keymount/internal/apierror"
	"keymount/internal/provider"
)

// maxText bounds what is repeated of an answer of the API server.
const maxText = 1024

// A key names a class.
type key struct{ namespace, name string }

func (k key) String() string { return k.namespace + "/" + k.name }

// failure puts an error of the API server into the words that users of the Secrets Store CSI Driver search for.
func (k key) failure(err error) *provider.Error {
	e := &provider.Error{Kind: kindOf(err), Message: k.message(err.Error()), Cause: unreadable{err}}
	switch e.Kind {
	case provider.NotFound:
		e.Remedy = fmt.Sprintf("create the SecretProviderClass %s in the pod's namespace %s", k.name, k.namespace)
		if notServed(err) {
			e.Remedy = "install the definitions of secrets-store.csi.x-k8s.io"
		}
	case provider.Denied:
		e.Remedy = "the driver's service account needs get, list and watch on secretproviderclasses, which the ClusterRole " +
			"secretproviderclasses-role grants"
	case provider.Throttled:
		e.RetryAfter = apierror.RetryAfter(err)
	case provider.Unavailable:
		e.Remedy = "the node could not reach the API server; it tries again"
	}
	return e
}

// unreadable is the cause of every error of a class that could not be had.
type unreadable struct{ error }

func (u unreadable) Unwrap() error { return u.error }

// ErrorType is the value of upstream's metric label error_type.
func (unreadable) ErrorType() string { return "SecretProviderClassNotFound" }

func (k key) message(text string) string {
	return fmt.Sprintf("failed to get secretproviderclass %s, error: %s", k, provider.OneLine(text, maxText))
}

// kindOf says what an error of a read means. What is neither an answer of an API server nor a connection that failed is an
// answer of somebody else, such as a proxy's page.
func kindOf(err error) provider.Kind {
	var status apierrors.APIStatus
	var network net.Error
	var request *url.Error
	switch {
	case errors.As(err, &status), errors.As(err, &network), errors.As(err, &request),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return apierror.Kind(err)
	}
	return provider.Internal
}
