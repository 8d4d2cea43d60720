package podstatus

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keymount/internal/apierror"
	"keymount/internal/provider"
)

// maxQuoted bounds what is repeated of a volume's id.
const maxQuoted = 128

var errForeign = errors.New("objects of others have the names that it could have")

// reasonOf maps kinds to the reasons of conditions.
func reasonOf(k provider.Kind) string {
	switch k {
	case provider.Invalid:
		return "Invalid"
	case provider.NotFound:
		return "NotFound"
	case provider.Denied:
		return "Denied"
	case provider.Throttled:
		return "Throttled"
	case provider.Unavailable:
		return "Unavailable"
	}
	return "Internal"
}

// failure says what could not be written, and what to do about it.
func (rec *record) failure(err error) error {
	e := &provider.Error{Kind: kindOf(err), Cause: err,
		Message: provider.OneLine(fmt.Sprintf("writing the SecretProviderClassPodStatus of pod %s/%s for class %s: %v",
			rec.pod.Namespace, rec.pod.Name, rec.class, err), 2*maxMessage)}
	switch {
	case errors.Is(err, errForeign):
		e.Remedy = fmt.Sprintf("delete the SecretProviderClassPodStatus %s if it is of no use", rec.names()[len(rec.names())-1])
	case e.Kind == provider.Denied:
		e.Remedy = "the driver's service account needs create, get and patch on secretproviderclasspodstatuses, which the " +
			"ClusterRole secretproviderclasses-role grants; it is tried again"
	case e.Kind == provider.NotFound:
		e.Remedy = "install the definitions of secrets-store.csi.x-k8s.io; it is tried again"
	case e.Kind == provider.Unavailable, e.Kind == provider.Throttled:
		e.Remedy = "it is tried again"
	}
	return e
}

// kindOf says what an error of a write means.
func kindOf(err error) provider.Kind {
	if errors.Is(err, errForeign) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err) {
		return provider.Invalid // what was to be written is what is wrong
	}
	return apierror.Kind(err)
}
