package daemon

import (
	"context"
	"errors"
	"log/slog"

	"keymount/internal/publish"
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
type outcomeLog struct{ log *slog.Logger }

func (l outcomeLog) Observe(ctx context.Context, o publish.Outcome) {
	log := l.log.With("volume", o.Volume.ID, "pod", o.Volume.Request.Pod.Namespace+"/"+o.Volume.Request.Pod.Name, "class", o.Volume.Class.String())
	var failed *publish.Error
	switch {
	case errors.As(o.Err, &failed) && failed.State == publish.Kept:
		log.WarnContext(ctx, "volume keeps its files, it could not be refreshed", "err", o.Err)
	case o.Err != nil:
	case o.Operation == publish.Unpublishing:
		l.log.InfoContext(ctx, "volume removed", "volume", o.Volume.ID)
	case o.Result.First:
		log.InfoContext(ctx, "volume mounted", "files", len(o.Result.Files), "took", o.Took)
	case !o.Result.Change.Empty():
		log.InfoContext(ctx, "volume changed", "added", len(o.Result.Change.Added), "updated", len(o.Result.Change.Updated),
			"removed", len(o.Result.Change.Removed), "took", o.Took)
	}
	for _, warning := range o.Result.Warnings {
		log.WarnContext(ctx, "warning of the provider", "warning", warning)
	}
	for _, err := range o.Result.Unfinished {
		log.ErrorContext(ctx, "left unfinished", "err", err)
	}
}
