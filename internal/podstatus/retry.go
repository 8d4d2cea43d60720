package podstatus

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"keymount/internal/provider"
)

// Run writes what is to be told of Secrets, and repeats the writes that failed, until they succeed, the volume is gone, or ctx is
// done. It returns nil.
func (r *Recorder) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.due:
		case <-timer.C:
		}
		rec, wait := r.next()
		for ; rec != nil && ctx.Err() == nil; rec, wait = r.next() {
			if err := r.write(ctx, rec); err != nil && ctx.Err() == nil {
				r.tell(ctx, rec, err)
			}
		}
		timer.Reset(wait)
	}
}

// tell logs that Run could not write an object. As a rule somebody has been told already, whoever recorded the volume's state; where
// it is news it is one line, however many volumes there are. An API server that is away is no news.
func (r *Recorder) tell(ctx context.Context, rec *record, err error) {
	level := slog.LevelDebug
	kind := provider.KindOf(err)
	r.mu.Lock()
	if rec.failures == 1 && !r.refused && kind != provider.Unavailable && kind != provider.Throttled {
		level, r.refused = slog.LevelWarn, true
	}
	r.mu.Unlock()
	r.cfg.Log.Log(ctx, level, "a status object cannot be written", "volume", rec.id, "err", err)
}

// next returns a record whose write is due, or how long there is none.
func (r *Recorder) next() (*record, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, wait := time.Now(), time.Hour
	for id, rec := range r.volumes {
		switch {
		case rec.forgotten(now):
			delete(r.volumes, id)
		case rec.retry.IsZero():
		case !rec.retry.After(now):
			return rec, 0
		default:
			wait = min(wait, rec.retry.Sub(now))
		}
	}
	return nil, wait
}

// postpone notes that a write failed, and when to repeat it. A time that is planned stands: a volume that is refreshed often
// fails often while the API server is away, and would else be the last to be told of when it is back.
func (r *Recorder) postpone(rec *record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec.retry.After(time.Now()) {
		return
	}
	wait := r.cfg.LastRetry
	if rec.failures < 16 {
		wait = min(wait, r.cfg.FirstRetry<<rec.failures)
	}
	rec.failures++
	wait += rand.N(wait/5 + 1) // so that the nodes of a cluster do not come back together
	rec.retry = time.Now().Add(wait)
	r.wake()
}

// wake has Run look anew at what is due.
func (r *Recorder) wake() {
	select {
	case r.due <- struct{}{}:
	default:
	}
}

// succeed notes that the state of so many changes is written. One that came later has its own writer, or waits for Run.
func (r *Recorder) succeed(rec *record, changes int) {
	r.mu.Lock()
	failures := rec.failures
	current := rec.changes == changes
	if current {
		rec.failures, rec.retry = 0, time.Time{}
		rec.want.objects = nil // the sum is enough to see whether they change
		r.refused = r.refused && failures == 0
	}
	r.mu.Unlock()
	if current && failures > 0 {
		r.cfg.Log.Info("a status object is written that could not be written before", "volume", rec.id, "failures", failures)
	}
}
