package daemon

import (
	"context"
	"errors"
	"log/slog"
	"maps"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

const (
	// maxFailing bounds what the log remembers of Secrets, far above what a node has. At worst a failure is told once more.
	maxFailing = 10_000
	// maxSecretName is that of a Secret, in bytes.
	maxSecretName = 253
)

// secretObservers tells several.
type secretObservers []publish.SecretObserver

func (os secretObservers) ObserveSecret(ctx context.Context, o publish.SecretOutcome) {
	for _, one := range os {
		one.ObserveSecret(ctx, o)
	}
}

// A volumeSecret is one Secret of one volume.
type volumeSecret struct{ volume, secret string }

// ObserveSecret logs what a try changed, and what nobody else is told: a Secret that cannot be synced fails no call.
func (l *outcomeLog) ObserveSecret(ctx context.Context, o publish.SecretOutcome) {
	if o.Err != nil && errors.Is(o.Err, context.Canceled) {
		return // the volume is being removed, or the daemon stops
	}
	name := provider.OneLine(o.Secret, maxSecretName) // whoever wrote the class may have written anything
	before, failed := l.noteSecret(volumeSecret{o.Volume.ID, name}, &o)
	level, message := slog.LevelInfo, ""
	args := []any{"volume", o.Volume.ID, "pod", o.Volume.Request.Pod.Namespace + "/" + o.Volume.Request.Pod.Name, "class", o.Volume.Class.String(),
		"secret", name, "took", o.Took}
	switch {
	case o.Err != nil:
		message, args = "Kubernetes Secret could not be synced", append(args, "exists", o.Exists, "err", o.Err)
		if level = slog.LevelWarn; failed && before == o.Err.Kind || l.rightToldBefore(o.Err) {
			level = slog.LevelDebug
		}
	case o.Action == publish.SecretCreated:
		message = "Kubernetes Secret created"
	case o.Action == publish.SecretUpdated:
		message = "Kubernetes Secret updated"
	case failed:
		message = "Kubernetes Secret is as it should be again"
	case o.Action == publish.SecretOwned:
		level, message = slog.LevelDebug, "Kubernetes Secret has one more owner"
	default:
		return
	}
	l.log.Log(ctx, level, message, args...)
}

// noteSecret remembers how a try ended, and returns how the last one of that Secret and volume failed, if it did.
func (l *outcomeLog) noteSecret(key volumeSecret, o *publish.SecretOutcome) (before provider.Kind, failed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, failed = l.failing[key]
	if o.Err == nil {
		delete(l.failing, key)
		if o.Action != publish.SecretKept {
			clear(l.rightsTold) // what is refused after this is news
		}
		return before, failed
	}
	if !failed && len(l.failing) >= maxFailing {
		for victim := range l.failing { // any
			delete(l.failing, victim)
			break
		}
	}
	l.failing[key] = o.Err.Kind
	return before, failed
}

// rightToldBefore says whether err is a missing right of which somebody who reads the log knows already: it fails every Secret of the node.
func (l *outcomeLog) rightToldBefore(err *provider.Error) bool {
	if err.Kind != provider.Denied || err.Remedy == "" {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	told := l.rightsTold[err.Remedy]
	l.rightsTold[err.Remedy] = true
	return told
}

// forgetSecrets forgets those of a volume that is gone.
func (l *outcomeLog) forgetSecrets(volumeID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.failing, func(key volumeSecret, _ provider.Kind) bool { return key.volume == volumeID })
}
