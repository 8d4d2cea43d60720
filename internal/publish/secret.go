package publish

import (
	"context"
	"time"

	"keymount/internal/provider"
)

// A SecretObject is one Kubernetes Secret that a class asks for, as its author wrote it: nothing of it has been checked.
type SecretObject struct {
	Name, Type          string
	Labels, Annotations map[string]string
	Data                []SecretKey
}

// A SecretKey is one key of a Secret and the file that its value comes from, by its path in the volume.
type SecretKey struct{ Key, File string }

// A SecretSyncer makes the Kubernetes Secrets that a class asks for.
type SecretSyncer interface {
	// SyncSecrets is called after each successful fetch, whether anything changed or not. b is what the volume holds, and what changed
	// in the source after asOf may be missing in it; it is neither changed nor kept. The call returns when the Secrets are there, or
	// after some seconds: what failed is tried again later, and told to a SecretObserver. It never fails the volume.
	SyncSecrets(ctx context.Context, v *Volume, b *provider.Bundle, asOf time.Time)
}

// A SecretOutcome is how one try to sync one Secret for one volume ended.
type SecretOutcome struct {
	// Volume has at least its ID, Target, Provider, Class and Request.Pod.
	Volume *Volume
	// Secret is its name, in the class's namespace.
	Secret string
	Action SecretAction
	// Err is an *Error of the provider contract, or nil. Its message names the Secret.
	Err *provider.Error
	// Exists says of a failure that the class's Secret is there all the same, with the content of before.
	Exists bool
	// Asked says that the API server was asked; if not, it was known that the Secret is as it should be.
	Asked bool
	Took  time.Duration
}

// A SecretAction is what was done to a Secret.
type SecretAction int

const (
	// SecretKept: it was as it should be, or another node had newer content. Also of a failure.
	SecretKept SecretAction = iota
	// SecretCreated: there was none.
	SecretCreated
	// SecretUpdated: its content, labels or annotations are other than they were.
	SecretUpdated
	// SecretOwned: only its owners are.
	SecretOwned
)

// A SecretObserver is told of every try, in the order in which those for one Secret and volume ended. It must not block for long.
type SecretObserver interface {
	ObserveSecret(ctx context.Context, o SecretOutcome)
}
