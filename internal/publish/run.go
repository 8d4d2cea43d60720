package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"keymount/internal/provider"
	"keymount/internal/volume"
)

// ErrNotMounted is what a Refresh of a volume that is not there matches.
var ErrNotMounted = errors.New("the volume is not mounted")

// run is one Publish or Refresh whose turn it is: fetch, mount, write, record, and undo if it made the volume and failed.
//
// A volume that is absent is mounted only when its content is there, so that a fetch that fails or is given up leaves
// nothing at all behind. Providers that may write into the target themselves need it mounted before.
func (p *Publisher) run(ctx context.Context, c *call, v *Volume, o *Outcome) (err error) {
	before, err := p.look(v)
	if err != nil {
		return failed(c.op, v, Left, at(stageMount, err))
	}
	o.Held = before.held
	started := p.cfg.Now()
	switch {
	case c.op == Refreshing && !before.mounted:
		return failed(c.op, v, Undone, ErrNotMounted)
	case c.op == Publishing && before.held && v.Once && !before.begun:
		return nil
	case before.held:
		c.foundWhole()
	}
	if err := resolve(ctx, v); err != nil {
		return p.fail(ctx, c.op, v, before, started, err, o)
	}
	if c.op == Publishing && p.nothingDue(v, before, started) {
		return nil
	}
	if err := prepare(ctx, v); err != nil {
		return p.fail(ctx, c.op, v, before, started, err, o)
	}

	a := &attempt{Publisher: p, ctx: ctx, v: v, before: before, release: func() {}}
	defer func() { a.release() }()
	done := false
	var cause error
	defer func() { // also when something below panics
		if done || !a.mountedHere {
			return
		}
		if uerr := p.cfg.Store.Unmount(v.Target); uerr != nil {
			err = failed(c.op, v, Left, errors.Join(cause, fmt.Errorf("undoing the mount: %w", uerr)))
			return
		}
		p.forget(v.ID, o)
	}()
	bundle, cause := a.fill(&o.Result)
	if cause != nil {
		o.Result = Result{}
		return p.fail(ctx, c.op, v, before, started, cause, o)
	}
	done = true
	p.recordSuccess(v, started, &o.Result)
	a.release()
	p.tell(ctx, v, started, &o.Result, bundle)
	return nil
}

func (p *Publisher) nothingDue(v *Volume, before *found, now time.Time) bool {
	switch {
	case before.held && v.Due.rests(&before.record, now):
		return true
	case before.whole:
		return !v.Due.after(&before.record, now)
	}
	return false
}

// resolve finds out what the volume asks for, and of whom.
func resolve(ctx context.Context, v *Volume) error {
	if v.Resolve != nil {
		if err := v.Resolve(ctx, v); err != nil {
			return err
		}
	}
	if v.Provider == "" {
		return &provider.Error{Kind: provider.Invalid, Message: "provider not set in " + v.Class.String()}
	}
	return nil
}

// prepare completes what the provider is asked.
func prepare(ctx context.Context, v *Volume) error {
	if v.Prepare != nil {
		if err := v.Prepare(ctx, v); err != nil {
			return err
		}
	}
	if len(v.Request.Parameters) == 0 {
		return &provider.Error{Kind: provider.Invalid, Message: "parameters not set in " + v.Class.String()}
	}
	return nil
}

// fail notes what a failed attempt means for the volume, and returns the error to report.
func (p *Publisher) fail(ctx context.Context, op Operation, v *Volume, before *found, started time.Time, cause error, o *Outcome) error {
	if before.held {
		p.recordFailure(ctx, v, before, started, cause, o)
	}
	return failed(op, v, before.stateAfter(cause), cause)
}

// An attempt is what one call has done so far.
type attempt struct {
	*Publisher
	ctx         context.Context
	v           *Volume
	before      *found
	mountedHere bool
	device      uint64 // of the volume, once it is there
	release     func() // gives back what the store has reserved; may be called again
}

// fill does everything up to and including the write.
func (a *attempt) fill(res *Result) (*provider.Bundle, error) {
	from, err := a.cfg.Provider(a.v.Provider)
	if err != nil {
		return nil, fmt.Errorf("error connecting to provider %q: %w", a.v.Provider, err)
	}
	writer, ok := from.(provider.TargetWriter)
	writesTarget := ok && writer.MayWriteTarget()
	if writesTarget {
		if err := a.mount(); err != nil {
			return nil, err
		}
	}
	bundle, err := a.fetch(from)
	if err != nil {
		return nil, err
	}
	switch {
	case bundle.SelfWritten && (!writesTarget || len(bundle.Files) > 0):
		return nil, &provider.Error{Kind: provider.Internal,
			Message: fmt.Sprintf("provider %q says that it wrote the files itself, which it cannot have done", a.v.Provider)}
	case !bundle.SelfWritten:
		if err := volume.Check(bundle.Files); err != nil {
			return nil, at(stageWrite, err)
		}
	}
	if a.ctx.Err() != nil { // nobody waits for the volume any more, or it is being removed
		return nil, &provider.Error{Kind: provider.Unavailable, Cause: a.ctx.Err(),
			Message: fmt.Sprintf("not writing what was read: %v", context.Cause(a.ctx))}
	}
	if err := a.mount(); err != nil {
		return nil, err
	}
	if err := a.stillThere(); err != nil {
		return nil, err
	}
	if err := a.reserve(bundle); err != nil {
		return nil, err
	}
	*res = Result{NewVersions: a.before.whole && !sameVersions(bundle.Versions, a.before.record.Versions), Fetched: true, First: !a.before.held, SelfWritten: bundle.SelfWritten,
		Files: describe(bundle), Versions: bundle.Versions, Warnings: slices.Concat(a.v.Warnings, bundle.Warnings)}
	if bundle.SelfWritten {
		return bundle, nil
	}
	res.Change, err = volume.Write(a.v.Target, bundle.Files, volume.Options{Group: a.v.Group})
	if res.Change.Leftover != nil {
		res.Unfinished = append(res.Unfinished, res.Change.Leftover)
	}
	return bundle, at(stageWrite, err)
}

// sameVersions compares without regard to the order, which some providers do not keep.
func sameVersions(a, b []provider.ObjectVersion) bool {
	order := func(x, y provider.ObjectVersion) int {
		return cmp.Or(cmp.Compare(x.ID, y.ID), cmp.Compare(x.Version, y.Version))
	}
	return slices.Equal(slices.SortedFunc(slices.Values(a), order), slices.SortedFunc(slices.Values(b), order))
}

// mount makes the volume if it is not there.
func (a *attempt) mount() error {
	switch {
	case a.mountedHere:
		return nil
	case a.before.mounted:
		a.device = a.before.record.Device
		a.recordBegin(a.device)
		return nil
	}
	if err := a.cfg.Store.Mount(a.v.Target); err != nil {
		return at(stageMount, err)
	}
	a.mountedHere = true
	status, err := a.cfg.Store.Inspect(a.v.Target)
	a.device = status.Device
	a.recordBegin(a.device)
	return at(stageMount, err)
}

// reserve makes sure that there is room for what is about to be written.
func (a *attempt) reserve(bundle *provider.Bundle) error {
	store, ok := a.cfg.Store.(Reserver)
	if !ok || bundle.SelfWritten {
		return nil
	}
	release, err := store.Reserve(a.v.Target, bundle.Files)
	if err != nil {
		return at(stageMount, err)
	}
	a.release = release
	return nil
}

// stillThere makes sure that nobody unmounted the volume while its content was read: what is written would otherwise end up
// in the folder below, on the node's disk.
func (a *attempt) stillThere() error {
	status, err := a.cfg.Store.Inspect(a.v.Target)
	if err == nil && (status.State == volume.Absent || status.Device != a.device) {
		err = &provider.Error{Kind: provider.Unavailable, Cause: ErrNotMounted,
			Message: fmt.Sprintf("somebody unmounted %s while its content was read", a.v.Target)}
	}
	return err
}

func (a *attempt) fetch(from provider.Provider) (bundle *provider.Bundle, err error) {
	release, err := a.fetches.take(a.ctx, a.v.Provider)
	if err != nil {
		return nil, err
	}
	defer release()
	req := a.v.Request
	req.TargetPath = a.v.Target
	req.Mounted = a.before.versions()
	if a.before.held && a.before.record.Mark != a.v.Due.Mark || !a.before.held && a.v.Due.MarkChanged {
		req.NotBefore = a.v.Due.MarkSeen
	}
	// One odd answer of a vault must not end the process that serves all pods of a node. Only what the runtime itself says
	// goes into the text: another panic's value may hold anything.
	defer func() {
		if r := recover(); r != nil {
			what := fmt.Sprintf("a panic with a %T", r)
			if re, ok := r.(runtime.Error); ok {
				what = re.Error()
			}
			bundle, err = nil, &provider.Error{Kind: provider.Internal,
				Message: fmt.Sprintf("provider %q stopped with %s", a.v.Provider, what), Remedy: "please report this"}
		}
	}()
	bundle, err = from.Fetch(a.ctx, &req)
	if err == nil && bundle == nil {
		err = &provider.Error{Kind: provider.Internal, Message: fmt.Sprintf("provider %q answered nothing", a.v.Provider)}
	}
	return bundle, err
}
