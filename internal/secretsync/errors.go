package secretsync

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keymount/internal/apierror"
	"keymount/internal/provider"
)

// minEcho is the length, in bytes, from which a content is looked for in what the API server says: shorter ones occur in any text by chance.
// Lines of a content are looked for from minLine on.
const (
	minEcho = 4
	minLine = 12
	echoed  = "the API server refuses the Secret, in words that repeat what is in it"
)

// A refused error is the API server's answer to a write that held contents, or that of one of its admission plugins.
type refused struct {
	error
	want *desired
}

func (e *refused) Unwrap() error { return e.error }

// Error returns the answer, or as much of it as tells nothing of the contents. What the API server finds wrong with data it quotes in part.
func (e *refused) Error() string {
	var status apierrors.APIStatus
	if errors.As(e.error, &status) && status.Status().Details != nil {
		var fields []string
		for _, cause := range status.Status().Details.Causes {
			if cause.Field == "data" || strings.HasPrefix(cause.Field, "data[") {
				fields = append(fields, quoted(cause.Field))
			}
		}
		if len(fields) > 0 {
			return fmt.Sprintf("the API server refuses %s as no content of a Secret of type %s", strings.Join(fields, ", "), quoted(e.want.kind))
		}
	}
	text := e.error.Error()
	text = text[:min(len(text), 16*maxText)]
	for _, content := range e.want.data {
		for line := range strings.Lines(string(content)) { // of a text that is quoted, the ends of lines are other ones
			if line = strings.TrimSpace(line); len(line) >= minLine && strings.Contains(text, line) {
				return echoed
			}
		}
		for _, form := range []string{strings.TrimSpace(string(content)), base64.StdEncoding.EncodeToString(content)} {
			if len(form) >= minEcho && strings.Contains(text, form) {
				return echoed
			}
		}
	}
	return text
}

// failure says what could not be done, and what to do about it.
func (s *Syncer) failure(class classState, name string, err error) *provider.Error {
	e := &provider.Error{Kind: kindOf(err), Object: "Secret " + quoted(name), Cause: err, RetryAfter: apierror.RetryAfter(err)}
	where := fmt.Sprintf("%s/%s", class.Namespace, quoted(name))
	var bad *badObject
	var taken *conflict
	switch {
	case errors.As(err, &bad):
		e.Message = fmt.Sprintf("failed to get data in spc %s for secret %s, err: %s", class, quoted(name), bad.message)
		e.Remedy = bad.remedy
	case errors.As(err, &taken):
		e.Message = fmt.Sprintf("syncing Secret %s: %s", where, taken.message)
		e.Remedy = taken.remedy
	default:
		text := provider.OneLine(err.Error(), maxText)
		if errors.Is(err, context.DeadlineExceeded) {
			text = fmt.Sprintf("it was not done within %v, because the API server did not answer or many Secrets are synced at once", within)
		}
		e.Message = fmt.Sprintf("syncing Secret %s: %s", where, text)
		e.Remedy = remedyOf(e.Kind, text)
	}
	return e
}

// remedyOf says what to do about an answer of the API server, or its absence.
func remedyOf(kind provider.Kind, text string) string {
	const admission = "a quota or an admission plugin of the cluster refuses it; it is tried again"
	switch {
	case strings.Contains(text, "ValidatingAdmissionPolicy"), strings.Contains(text, "admission webhook"):
		return admission
	case kind == provider.Denied && strings.Contains(text, "ownerRef"): // the admission plugin OwnerReferencesPermissionEnforcement
		return "the driver's service account needs delete on secrets in this cluster, which lets nobody else change owners; it is tried again"
	case kind == provider.Denied && strings.Contains(text, "cannot "): // the authoriser's word
		return "the driver's service account needs get on pods and create, get and patch on secrets, which the chart's value syncSecret.enabled grants; it is tried again"
	case kind == provider.Denied:
		return admission
	case kind == provider.Unavailable, kind == provider.Throttled:
		return "it is tried again"
	}
	return ""
}

// kindOf says what an error of a try means.
func kindOf(err error) provider.Kind {
	var bad *badObject
	var taken *conflict
	var given *provider.Error
	switch {
	case errors.As(err, &bad), errors.As(err, &taken),
		apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err):
		return provider.Invalid // what was to be written is what is wrong
	case errors.As(err, &given):
		return given.Kind
	}
	return apierror.Kind(err)
}

// lasting says whether nothing but another class or another content of the volume can mend it, so that it is not tried again before.
func lasting(err error) bool {
	var bad *badObject
	return errors.As(err, &bad)
}
