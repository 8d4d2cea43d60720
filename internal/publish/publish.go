// Package publish is the use case: how a volume comes to hold what its class asks for, is refreshed, and goes away. First
// mounts, kubelet's republish, rotation and the command line all come through here, so there is no second way for a secret
// to reach a file.
//
// It owns the order of the steps, the undo of a first mount that fails, the deadline, the lock of each volume and the
// outcome. It knows providers by their contract and volumes by internal/volume; it imports no Kubernetes, no gRPC and no
// Azure. A Publisher may be used from any number of goroutines.
package publish

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"keymount/internal/provider"
	"keymount/internal/volume"
	"keymount/internal/volume/registry"
)

// DefaultDeadline is how long one call may take from its arrival: kubelet gives up after 120 s, and a call that ends before
// that can still say what it left.
const DefaultDeadline = 110 * time.Second

// DefaultFetches is how many fetches of one provider run at a time.
const DefaultFetches = 64

// A Store is where volumes live: tmpfs mounts (volume.Tmpfs) or plain folders (volume.Folder).
type Store interface {
	// Mount makes an empty volume at target.
	Mount(target string) error
	// Unmount removes the volume with all it holds; no error if there is none.
	Unmount(target string) error
	// Inspect says what is at target.
	Inspect(target string) (volume.Status, error)
}

// A Reserver is a Store that bounds what all volumes together may use.
type Reserver interface {
	Store
	// Reserve sees to it that there is room for the files in the volume at target, until release, which is when the volume has
	// been recorded or undone; to call it again does nothing. The error says what to do for more room.
	Reserve(target string, files []provider.File) (release func(), err error)
}

// Config is what a Publisher works with.
type Config struct {
	// Provider returns the provider that goes by a name, or an error that says which there are. Required.
	Provider func(name string) (provider.Provider, error)
	// Store holds the volumes. Required.
	Store Store
	// Registry remembers how each volume fared. Without one, no volume is known to be whole, and every Publish fetches.
	Registry *registry.Registry
	// Status is told of every write, Secrets gets every bundle that was read; nil where there is nobody to tell.
	Status  StatusRecorder
	Secrets SecretSyncer
	// Observer is told how every call ended; nil where there is nobody to tell.
	Observer Observer
	// Now is the clock that says when a volume is due; nil means time.Now. It may jump.
	Now func() time.Time
	// Deadline of a call, from its arrival, waiting included; 0 means DefaultDeadline. A caller's earlier one stands.
	Deadline time.Duration
	// Fetches in flight per provider, so that one that hangs holds up nobody else's volumes; 0 means DefaultFetches.
	Fetches int
}

// A Publisher makes, refreshes and removes volumes.
type Publisher struct {
	cfg     Config
	bootID  func() string // "" where the system does not tell
	calls   calls
	fetches places
}

// New returns a Publisher.
func New(cfg Config) *Publisher {
	if cfg.Deadline <= 0 {
		cfg.Deadline = DefaultDeadline
	}
	if cfg.Fetches <= 0 {
		cfg.Fetches = DefaultFetches
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Publisher{
		cfg: cfg,
		bootID: sync.OnceValue(func() string {
			id, err := volume.BootID()
			if err != nil {
				return "" // then no record counts
			}
			return id
		}),
		calls:   calls{byTarget: map[string]*line{}},
		fetches: places{limit: cfg.Fetches, byProvider: map[string]chan struct{}{}},
	}
}

// Publish sees to it that the volume is there. One that is whole is left as it is until it is due; one that is absent is
// made; one that holds files which this node has no record of (upstream's driver mounted it, or the registry was lost) is
// adopted: fetched and written again in place, its files never gone in between. Without rotation (Volume.Once) it is left
// as it is.
//
// A Publish that finds its volume being refreshed answers at once, with Result.Busy. Every error is an *Error. A first
// mount that fails leaves nothing; if that could not be ensured the error says so. A refresh that fails leaves the volume
// as it was: the error is in the state Kept.
func (p *Publisher) Publish(ctx context.Context, v Volume) (Result, error) {
	return p.do(ctx, &v, Publishing)
}

// Refresh fetches what a mounted volume should hold and writes what changed. If that fails the volume keeps its files, and
// the error, an *Error in the state Kept, is recorded and returned. A Refresh that finds its volume busy answers at once,
// with Result.Busy; a volume that is not mounted is an error that matches ErrNotMounted.
func (p *Publisher) Refresh(ctx context.Context, v Volume) (Result, error) {
	return p.do(ctx, &v, Refreshing)
}

// Unpublish removes the volume, its files and what is remembered of it. It needs nothing but the volume's id and target,
// works any number of times, and first ends every Publish and Refresh of the volume that is under way. A record that cannot
// be removed is no error, but told to the Observer.
func (p *Publisher) Unpublish(ctx context.Context, id, target string) error {
	o := Outcome{Operation: Unpublishing, Volume: &Volume{ID: id, Target: target}}
	p.take(ctx, &o, p.remove)
	return o.Err
}

func (p *Publisher) remove(ctx context.Context, c *call, o *Outcome) error {
	v := o.Volume
	c.cancelOthers(errUnpublished)
	if err := c.wait(ctx); err != nil {
		return failed(Unpublishing, v, Left, err)
	}
	if err := p.cfg.Store.Unmount(v.Target); err != nil {
		return failed(Unpublishing, v, Left, err)
	}
	p.forget(v.ID, o)
	return nil
}

// do runs a Publish or Refresh.
func (p *Publisher) do(ctx context.Context, v *Volume, op Operation) (Result, error) {
	o := Outcome{Operation: op, Volume: v}
	p.take(ctx, &o, p.work)
	return o.Result, o.Err
}

// take runs one call and tells how it ended, before the next one for the volume can begin: whoever remembers volumes would
// else hear of the end of a volume first, and then of what it was before, and remember it for ever.
func (p *Publisher) take(ctx context.Context, o *Outcome, do func(context.Context, *call, *Outcome) error) {
	arrived := time.Now()
	tell := func() {
		o.Took = time.Since(arrived)
		if p.cfg.Observer != nil {
			p.cfg.Observer.Observe(ctx, *o)
		}
	}
	if err := checkPlace(o.Volume); err != nil {
		o.Err = failed(o.Operation, o.Volume, Undone, err)
		tell()
		return
	}
	within, c, end := p.begin(ctx, o.Volume.Target, o.Operation)
	defer end()
	o.Err = do(within, c, o)
	tell()
}

// work waits for the volume's turn and makes or refreshes it.
func (p *Publisher) work(ctx context.Context, c *call, o *Outcome) error {
	v := o.Volume
	if !c.try() {
		if c.op == Refreshing || c.refreshUnderWay() {
			o.Result = Result{Busy: true}
			return nil
		}
		if err := c.wait(ctx); err != nil {
			return failed(c.op, v, Left, err)
		}
	}
	err := p.run(ctx, c, v, o)
	if v.Holds != nil && holds(err) {
		v.Holds()
	}
	return err
}

// holds says whether a volume holds files after a call that ended with err.
func holds(err error) bool {
	var e *Error
	return err == nil || errors.As(err, &e) && e.State == Kept
}

// begin enters a call; end leaves it and must be called.
func (p *Publisher) begin(ctx context.Context, target string, op Operation) (context.Context, *call, func()) {
	ctx, stop := context.WithTimeoutCause(ctx, p.cfg.Deadline, errDeadline{p.cfg.Deadline})
	ctx, c := p.calls.enter(ctx, target, op)
	return ctx, c, func() { c.leave(); stop() }
}

func checkPlace(v *Volume) error {
	switch {
	case v.ID == "":
		return &provider.Error{Kind: provider.Invalid, Message: "the volume has no id"}
	case !filepath.IsAbs(v.Target) || filepath.Clean(v.Target) != v.Target || filepath.Dir(v.Target) == v.Target:
		return &provider.Error{Kind: provider.Invalid, Message: fmt.Sprintf("the target path %q is not an absolute, clean path below the root folder", v.Target)}
	}
	return nil
}

var errUnpublished = errors.New("the volume is being removed")

// errDeadline is the cause of a context that this package's own deadline ended.
type errDeadline struct{ after time.Duration }

func (e errDeadline) Error() string { return fmt.Sprintf("gave up after %v", e.after) }

// Is makes it count as what it is.
func (errDeadline) Is(target error) bool { return target == context.DeadlineExceeded }
