package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/volume/registry"
)

// observers tells several.
type observers []publish.Observer

func (os observers) Observe(ctx context.Context, o publish.Outcome) {
	for _, one := range os {
		one.Observe(ctx, o)
	}
}

// outcomeLog logs what a call changed, and what no caller is told: kubelet hears OK of a volume that keeps its files. Calls
// that failed for kubelet too are logged where they are answered.
type outcomeLog struct {
	log *slog.Logger

	mu sync.Mutex
	// told are the remedies for what is wrong with the node or the cluster and was told. They are texts of ours, so there are
	// few.
	told map[string]bool
	// warned are the warnings of each volume when it was last fetched: the same ones come again with every refresh.
	warned map[string][]string
	// stale are the volumes whose last refresh failed.
	stale map[string]bool
	// failing are the Kubernetes Secrets whose last try failed, and how.
	failing map[volumeSecret]provider.Kind
	// rightsTold are the remedies for rights to Secrets that are missing and were told.
	rightsTold map[string]bool
}

func newOutcomeLog(log *slog.Logger) *outcomeLog {
	return &outcomeLog{log: log, told: map[string]bool{}, warned: map[string][]string{}, stale: map[string]bool{},
		failing: map[volumeSecret]provider.Kind{}, rightsTold: map[string]bool{}}
}

func (l *outcomeLog) Observe(ctx context.Context, o publish.Outcome) {
	log := l.log.With("volume", o.Volume.ID, "pod", o.Volume.Request.Pod.Namespace+"/"+o.Volume.Request.Pod.Name, "class", o.Volume.Class.String())
	var failed *publish.Error
	kept := errors.As(o.Err, &failed) && failed.State == publish.Kept
	recovered := l.recovered(o, kept)
	switch {
	case kept:
		log.WarnContext(ctx, "volume keeps its files, it could not be refreshed", "err", o.Err)
	case o.Err != nil:
	case o.Operation == publish.Unpublishing:
		l.log.InfoContext(ctx, "volume removed", "volume", o.Volume.ID)
		l.forgetSecrets(o.Volume.ID)
	case o.Result.First:
		log.InfoContext(ctx, "volume mounted", "files", len(o.Result.Files), "took", o.Took)
	case !o.Result.Change.Empty():
		log.InfoContext(ctx, "volume changed", "added", len(o.Result.Change.Added), "updated", len(o.Result.Change.Updated),
			"removed", len(o.Result.Change.Removed), "took", o.Took)
	case recovered:
		log.InfoContext(ctx, "volume is refreshed again, nothing changed", "took", o.Took)
	}
	l.warn(ctx, log, o)
	for _, err := range o.Result.Unfinished {
		level := slog.LevelError
		if l.toldBefore(err) {
			level = slog.LevelDebug
		}
		log.Log(ctx, level, "left unfinished", "err", err)
	}
	if o.Result.Fetched && len(o.Result.Unfinished) == 0 {
		l.forget()
	}
}

// recovered says whether the volume was refreshed after it could not be, and remembers what the next call needs to know.
func (l *outcomeLog) recovered(o publish.Outcome, kept bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	stale := l.stale[o.Volume.ID]
	switch {
	case kept && o.Operation != publish.Unpublishing:
		l.stale[o.Volume.ID] = true
	case o.Err == nil && (o.Result.Fetched || o.Operation == publish.Unpublishing):
		delete(l.stale, o.Volume.ID)
		return stale
	}
	return false
}

// warn logs what the class and the provider warn of. What a volume's last fetch warned of too is debug output.
func (l *outcomeLog) warn(ctx context.Context, log *slog.Logger, o publish.Outcome) {
	l.mu.Lock()
	before := l.warned[o.Volume.ID]
	switch {
	case o.Err != nil: // of what was warned is not known
	case o.Operation == publish.Unpublishing, o.Result.Fetched && len(o.Result.Warnings) == 0:
		delete(l.warned, o.Volume.ID)
	case o.Result.Fetched:
		l.warned[o.Volume.ID] = o.Result.Warnings
	}
	l.mu.Unlock()
	for _, warning := range o.Result.Warnings {
		level := slog.LevelWarn
		if slices.Contains(before, warning) {
			level = slog.LevelDebug
		}
		log.Log(ctx, level, "volume has a warning", "warning", warning)
	}
}

// toldBefore says whether err is a missing right, or a state folder that cannot be written, of which somebody who reads the
// log knows already: it fails every volume of the node at each of its refreshes.
func (l *outcomeLog) toldBefore(err error) bool {
	var e *provider.Error
	if !errors.As(err, &e) || e.Remedy == "" || e.Kind != provider.Denied && !errors.Is(err, registry.ErrUnwritten) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	told := l.told[e.Remedy]
	l.told[e.Remedy] = true
	return told
}

// forget has what goes wrong later told anew.
func (l *outcomeLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.told)
}
