package metrics

import (
	"errors"
	"regexp"
	"slices"
	"sync"
)

// nameRule is what a value from outside must look like to become a label value.
var nameRule = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`)

// names are label values that come from outside, up to a number.
type names struct {
	most int
	mu   sync.RWMutex
	set  map[string]bool
}

// add lets a name be a label value; false if it is odd, or one too many.
func (n *names) add(name string) bool {
	switch {
	case n.has(name):
		return true
	case !nameRule.MatchString(name):
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.set == nil {
		n.set = map[string]bool{}
	}
	if len(n.set) >= n.most && !n.set[name] {
		return false
	}
	n.set[name] = true
	return true
}

func (n *names) has(name string) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.set[name]
}

// The values of upstream's label error_type that this driver records itself.
const (
	errorMount      = "FailedToMount" // where nothing more is known
	errorMountPoint = "FailedToEnsureMountPoint"
	errorClass      = "SecretProviderClassNotFound"
	errorProvider   = "GRPCProviderError"
	errorWrite      = "FileWriteError"
	errorLookup     = "FailedToLookupProviderGRPCClient"
	errorOther      = "other" // a code of a provider that is odd, or one too many
)

// A Typed error, or one behind it, names its value of error_type. What is none of upstream's values is taken for a code
// that a provider wrote into its answer.
type Typed interface {
	error
	ErrorType() string
}

func (m *Metrics) errorType(err error) string {
	var typed Typed
	if !errors.As(err, &typed) {
		return errorMount
	}
	value := typed.ErrorType()
	switch {
	case slices.Contains([]string{errorMount, errorMountPoint, errorClass, errorProvider, errorWrite, errorLookup}, value):
		return value
	case m.codes.add(value):
		return value
	}
	return errorOther
}
