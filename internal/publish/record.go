package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keymount/internal/provider"
	"keymount/internal/volume"
	"keymount/internal/volume/registry"
)

// found is what there was before a call. The system says it: the registry only adds what the system cannot know, and only
// if its record is of this very mount.
type found struct {
	mounted    bool            // the volume is there
	generation bool            // and holds files that were written here or by upstream's driver
	held       bool            // or that a provider wrote itself, so that pods may be reading them
	whole      bool            // and they are known to have been what the class asked for
	begun      bool            // or this node's driver mounted it, and was ended before it had told what it holds
	record     registry.Record // of this mount, with its device; else a new one
}

func (p *Publisher) look(v *Volume) (*found, error) {
	status, err := p.cfg.Store.Inspect(v.Target)
	switch {
	case err != nil:
		return nil, err
	case status.State == volume.Foreign:
		return nil, &provider.Error{Kind: provider.Invalid,
			Message: fmt.Sprintf("something else than a volume is mounted at %s", v.Target), Remedy: "unmount it"}
	}
	f := &found{mounted: status.State == volume.Mounted, generation: status.Generation != ""}
	ours := false
	if p.cfg.Registry != nil && f.mounted {
		f.record, ours = p.cfg.Registry.Get(v.ID)
		boot := p.bootID()
		ours = ours && boot != "" && f.record.BootID == boot && f.record.Device == status.Device && f.record.Target == v.Target
	}
	if !ours { // another mount, another run of the system, or none
		f.record = registry.Record{Volume: v.ID, Target: v.Target, Device: status.Device, BootID: p.bootID()}
	}
	written := ours && !f.record.LastSuccess.IsZero()
	f.begun = ours && !written
	f.held = f.mounted && (f.generation || written)
	f.whole = f.mounted && written && (f.generation || f.record.SelfWritten)
	return f, nil
}

// versions are those that the volume holds for certain. A provider may answer out of the volume what it is told is there,
// so a volume that might lack something holds nothing.
func (f *found) versions() []provider.ObjectVersion {
	if !f.whole {
		return nil
	}
	return f.record.Versions
}

// stateAfter says what a failed attempt left, if its undo succeeds.
func (f *found) stateAfter(cause error) State {
	switch {
	case errors.Is(cause, ErrNotMounted):
		return Left // whoever unmounts what is ours may do more
	case f.held:
		return Kept
	case f.mounted:
		return Left
	}
	return Undone
}

// recordBegin notes that the volume is this node's driver's, before it holds anything: should the process end between the
// write and recordSuccess, the next one would else take it for another driver's, and leave it without status, for ever
// where there is no rotation. That it cannot be written is told when the success cannot be either.
func (a *attempt) recordBegin(device uint64) {
	if a.cfg.Registry == nil || a.before.held {
		return
	}
	rec := registry.Record{Volume: a.v.ID, Target: a.v.Target, Device: device, BootID: a.bootID(), LastAttempt: a.cfg.Now()}
	describeRecord(&rec, a.v)
	_ = a.cfg.Registry.Save(rec)
}

// forget drops the record of a volume that is gone. One on a disk that cannot be written must not keep the pod from going
// away: this process has forgotten the volume, and no later one believes in a volume that is not mounted.
func (p *Publisher) forget(id string, o *Outcome) {
	if p.cfg.Registry == nil {
		return
	}
	if err := p.cfg.Registry.Delete(id); err != nil {
		o.Result.Unfinished = append(o.Result.Unfinished, err)
	}
}

// recordFailure notes why a volume that still holds files could not be refreshed, and when to try again.
func (p *Publisher) recordFailure(ctx context.Context, v *Volume, before *found, started time.Time, cause error, o *Outcome) {
	var errs []error
	if p.cfg.Registry != nil {
		rec := before.record
		describeRecord(&rec, v)
		rec.LastAttempt, rec.LastFailure = started, registry.FailureOf(cause)
		rec.Failures++
		rec.NextDue = started.Add(backoff(rec.Failures, v.Due.Every, provider.ErrorsOf(cause)))
		errs = append(errs, p.cfg.Registry.Save(rec))
	}
	if p.cfg.Status != nil {
		errs = append(errs, p.cfg.Status.RecordFailure(ctx, v, cause))
	}
	for _, err := range errs {
		if err != nil {
			o.Result.Unfinished = append(o.Result.Unfinished, err)
		}
	}
}

// recordSuccess notes what the volume now holds. started is when its content was certainly not yet older than the source's.
func (p *Publisher) recordSuccess(v *Volume, started time.Time, res *Result) {
	if p.cfg.Registry == nil {
		return
	}
	after, err := p.look(v)
	if err == nil {
		rec := after.record
		describeRecord(&rec, v)
		rec.Versions = res.Versions
		rec.SelfWritten, rec.Mark, rec.Secrets = res.SelfWritten, v.Due.Mark, len(v.Secrets) > 0
		rec.LastAttempt, rec.LastSuccess, rec.LastFailure = started, started, nil
		rec.Failures, rec.NextDue = 0, time.Time{}
		err = p.cfg.Registry.Save(rec)
	}
	if err != nil {
		res.Unfinished = append(res.Unfinished, err)
	}
}

func describeRecord(rec *registry.Record, v *Volume) {
	rec.Class = registry.Class(v.Class)
	rec.Pod = registry.Pod{Name: v.Request.Pod.Name, UID: v.Request.Pod.UID}
	if v.Provider != "" { // else the class could not be read
		rec.Provider = v.Provider
	}
}

// tell hands on what was read, at the time started or later, and written.
func (p *Publisher) tell(ctx context.Context, v *Volume, started time.Time, res *Result, b *provider.Bundle) {
	if p.cfg.Status != nil {
		if err := p.cfg.Status.RecordStatus(ctx, v, res); err != nil {
			res.Unfinished = append(res.Unfinished, err)
		}
	}
	if p.cfg.Secrets != nil {
		asOf := started
		if !b.AsOf.IsZero() && b.AsOf.Before(started) {
			asOf = b.AsOf
		}
		p.cfg.Secrets.SyncSecrets(ctx, v, b, asOf)
	}
}
