package events

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"strings"
	"time"

	"keymount/internal/publish"
)

// maxSecretName is that of a Secret, in bytes.
const maxSecretName = 253

var _ publish.SecretObserver = (*Recorder)(nil)

// ObserveSecret takes in how a try to sync a Secret of a volume ended.
func (r *Recorder) ObserveSecret(_ context.Context, o publish.SecretOutcome) {
	if !nameable(o.Volume.Request.Pod) || o.Err != nil && (away(o.Err.Kind) || errors.Is(o.Err, context.Canceled)) {
		return // whose it is is not known, or it is no news that could be told to an API server that is away, or nobody needs it any more
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.Err == nil && o.Action != publish.SecretUpdated && r.volumes[o.Volume.ID] == nil {
		return // nothing to tell, and nothing that would be over
	}
	h := r.history(o.Volume.ID)
	h.seen = now
	if n := h.secret(&o, now); n != nil {
		r.enqueue(n)
	}
}

// secret returns what to tell of a try, nil if that is nothing or was told lately.
func (h *history) secret(o *publish.SecretOutcome, now time.Time) *note {
	text := "SecretProviderClass " + o.Volume.Class.Name + ": "
	switch {
	case o.Err != nil:
		reason := FailedToCreateSecret
		if o.Exists {
			reason = SecretRotationFailed
		}
		return h.note(o.Volume, warning, reason, sumOfSecret(o.Secret)+o.Err.Kind.String(), text+shortened(o.Err.Error(), maxText), now)
	case o.Action == publish.SecretUpdated:
		h.endSecret(o.Secret)
		return h.note(o.Volume, normal, SecretRotationComplete, sumOfSecret(o.Secret),
			text+"the Kubernetes Secret "+bounded(o.Secret, maxSecretName)+" was updated", now)
	}
	h.endSecret(o.Secret)
	return nil
}

// endSecret notes that the failures of a Secret are over, so that the next one is news.
func (h *history) endSecret(name string) {
	for _, reason := range []string{FailedToCreateSecret, SecretRotationFailed} {
		if failed := h.told[reason]; len(failed) > 0 {
			sum := sumOfSecret(name)
			maps.DeleteFunc(failed, func(what string, _ *told) bool { return strings.HasPrefix(what, sum) })
		}
	}
}

func ofSecret(reason string) bool {
	return reason == FailedToCreateSecret || reason == SecretRotationFailed || reason == SecretRotationComplete
}

// sumOfSecret stands for a name, which may be of any length.
func sumOfSecret(name string) string {
	sum := sha256.Sum256([]byte(name))
	return string(sum[:])
}
