package provider

import (
	"context"
	"errors"
	"strings"
	"time"
)

// A Kind says what a failure means for the caller. Each boundary (gRPC status, exit code, metric label) maps kinds in one
// function.
type Kind int

const (
	// Internal is a failure of the provider itself, and what an error of no other kind counts as.
	Internal Kind = iota
	// Invalid is a request that cannot succeed until the class or the pod is changed.
	Invalid
	// NotFound is an object, version or vault that does not exist.
	NotFound
	// Denied is an identity that may not do this, or could not prove itself.
	Denied
	// Throttled is a source that asked for fewer requests.
	Throttled
	// Unavailable is a source that could not be reached or did not answer in time.
	Unavailable
)

var kindNames = [...]string{"internal", "invalid", "not_found", "denied", "throttled", "unavailable"}

// String returns the kind's name as used on the wire and in metric labels.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return kindNames[Internal]
	}
	return kindNames[k]
}

// ParseKind is the inverse of String; ok is false for a name that is none.
func ParseKind(name string) (k Kind, ok bool) {
	for i, n := range kindNames {
		if n == name {
			return Kind(i), true
		}
	}
	return Internal, false
}

// An Error is one failure in terms that the user of a class can act on. Its texts go to logs, Events and terminals, so
// they never contain secret bytes, tokens or the body of a successful answer.
type Error struct {
	Kind Kind
	// Object is the id of the object that failed, as in ObjectVersion ("secret/db-password"); "" if the whole request did.
	Object string
	// Message says what was being done and what happened, naming the object and the vault.
	Message string
	// Remedy is one sentence on what to do about it; may be "".
	Remedy string
	// RetryAfter is how long the source asked to be left alone; 0 if it did not say.
	RetryAfter time.Duration
	// Cause is kept for errors.Is and errors.As and is not part of the text; may be nil.
	Cause error
}

// Error returns the message and the remedy.
func (e *Error) Error() string {
	if e.Remedy == "" {
		return e.Message
	}
	return e.Message + " (" + e.Remedy + ")"
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Errors are the failures of several objects of one request.
type Errors []*Error

// Error joins the texts, one line each.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.Is and errors.As look into every failure.
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// ErrorsOf returns every failure in err. What is no *Error becomes one of the kind KindOf(err). nil gives nil.
func ErrorsOf(err error) Errors {
	if err == nil {
		return nil
	}
	var many Errors
	if errors.As(err, &many) {
		return many
	}
	var one *Error
	if errors.As(err, &one) {
		return Errors{one}
	}
	return Errors{{Kind: KindOf(err), Message: err.Error(), Cause: err}}
}

// severity orders kinds by how little a retry helps: of several failures the one that a retry cannot mend decides.
func severity(k Kind) int {
	switch k {
	case Invalid:
		return 6
	case Denied:
		return 5
	case NotFound:
		return 4
	case Unavailable:
		return 2
	case Throttled:
		return 1
	}
	return 3
}

// KindOf returns the kind of err. Of several failures the one that a retry helps least decides. A context that ended counts
// as Unavailable; anything unknown, nil included, as Internal.
func KindOf(err error) Kind {
	var many Errors
	if errors.As(err, &many) && len(many) > 0 {
		kind := many[0].Kind
		for _, e := range many[1:] {
			if severity(e.Kind) > severity(kind) {
				kind = e.Kind
			}
		}
		return kind
	}
	var one *Error
	if errors.As(err, &one) {
		return one.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Unavailable
	}
	return Internal
}
