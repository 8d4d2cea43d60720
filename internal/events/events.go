// Package events tells the owner of a pod, by Events on it, what its volumes and their Kubernetes Secrets could not do, and that their
// content changed.
//
// It implements publish.Observer and publish.SecretObserver. It owns which outcomes are worth an Event, the reasons, and how rarely a failure that
// lasts is repeated: not by its text, which has request ids and times in it, but by what failed. Nobody who tells waits for the
// API server; Run sends. The package imports publish, the provider contract and client-go's dynamic client. Every method may
// be called from any number of goroutines.
package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"keymount/internal/publish"
)

// The reasons of Events. Those of rotation are those that upstream's driver had up to 1.5.6; FailedToCreateSecret it has still.
const (
	// FailedToMountSecrets: a volume that holds nothing yet could not be mounted.
	FailedToMountSecrets = "FailedToMountSecrets"
	// MountRotationComplete: a refresh changed what a volume holds.
	MountRotationComplete = "MountRotationComplete"
	// MountRotationFailed: a volume could not be refreshed and holds what it held.
	MountRotationFailed = "MountRotationFailed"
	// MountUnfinished: a volume is up to date, and something that belongs to that failed, such as its status object.
	MountUnfinished = "MountUnfinished"
	// FailedToCreateSecret: a Kubernetes Secret that the class asks for could not be made.
	FailedToCreateSecret = "FailedToCreateSecret"
	// SecretRotationComplete: a refresh changed a Secret that was there.
	SecretRotationComplete = "SecretRotationComplete"
	// SecretRotationFailed: a Secret is there and holds what it held.
	SecretRotationFailed = "SecretRotationFailed"
)

// Component is the source of the Events.
const Component = "secrets-store-csi-driver"

const (
	normal  = "Normal"
	warning = "Warning"

	// quiet is how long the same failure of a volume is not repeated.
	quiet = 10 * time.Minute
	// maxQueue bounds what waits to be sent.
	maxQueue = 256
	// maxVolumes bounds the bookkeeping, far above what a node has.
	maxVolumes = 10_000
	// idle is how long a volume is remembered that never came to hold anything, and was not tried again.
	idle = time.Hour
)

// Config says how to reach the API server, and who tells.
type Config struct {
	// API is the API server. Required.
	API *rest.Config
	// NodeID is the host that Events come from.
	NodeID string
	Log    *slog.Logger
}

// A Recorder turns outcomes into Events.
type Recorder struct {
	cfg    Config
	client dynamic.Interface
	queue  chan *note

	mu      sync.Mutex
	volumes map[string]*history // by volume id
	lost    uint64
	full    bool // that the queue is full has been said
	failing bool // that Events cannot be written has been said
}

// A note is an Event to be sent.
type note struct {
	namespace, pod, uid   string
	kind, reason, message string
	at                    time.Time
	told                  *told
	id                    uint64 // ends the Event's name, so that one whose answer was lost is not there twice
}

// New returns a Recorder. It sends nothing.
func New(cfg Config) (*Recorder, error) {
	client, err := dynamic.NewForConfig(cfg.API)
	if err != nil {
		return nil, fmt.Errorf("making a client for Events: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Recorder{cfg: cfg, client: client, queue: make(chan *note, maxQueue), volumes: map[string]*history{}}, nil
}

// Lost returns how many Events were given up: too many at once, or refused by the API server.
func (r *Recorder) Lost() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// Observe takes in how a call ended.
func (r *Recorder) Observe(_ context.Context, o publish.Outcome) {
	switch {
	case o.Operation == publish.Unpublishing:
		if o.Err == nil {
			r.forget(o.Volume.ID)
		}
	case o.Err != nil && errors.Is(o.Err, context.Canceled):
		// Whoever wanted it has left, which says nothing about the volume: it is being removed, or the daemon stops.
	case o.Err != nil && (o.Held || o.Operation == publish.Publishing), o.Err == nil && o.Result.Fetched:
		r.observe(&o)
	}
}

func (r *Recorder) observe(o *publish.Outcome) {
	if !nameable(o.Volume.Request.Pod) {
		return
	}
	now, news := time.Now(), []*note{}
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.history(o.Volume.ID)
	h.seen, h.held = now, o.Held || o.Err == nil
	switch {
	case o.Err != nil && o.Held:
		news = append(news, h.failure(MountRotationFailed, o, now))
	case o.Err != nil:
		news = append(news, h.failure(FailedToMountSecrets, o, now))
	default:
		h.end(FailedToMountSecrets)
		h.end(MountRotationFailed)
		news = append(news, h.rotation(o, now))
	}
	news = append(news, h.unfinished(o, now))
	for _, n := range news {
		if n != nil {
			r.enqueue(n)
		}
	}
}

// enqueue gives a note to Run, or drops it. r.mu is held.
func (r *Recorder) enqueue(n *note) {
	select {
	case r.queue <- n:
		r.full = false
	default:
		r.lost++
		n.told.last = time.Time{} // so that it is told when it happens again
		if !r.full {
			r.full = true
			r.cfg.Log.Warn("too many Events at once; further ones are dropped", "limit", maxQueue, "lost", r.lost)
		}
	}
}

// history returns what is remembered of a volume. r.mu is held.
func (r *Recorder) history(id string) *history {
	h := r.volumes[id]
	if h == nil {
		if len(r.volumes) >= maxVolumes {
			for victim := range r.volumes { // any: at worst a failure is told once more
				delete(r.volumes, victim)
				break
			}
		}
		h = newHistory()
		r.volumes[id] = h
	}
	return h
}

func (r *Recorder) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.volumes, id)
}

// sweep forgets volumes that never came to be: kubelet need not unpublish them.
func (r *Recorder) sweep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, h := range r.volumes {
		if !h.held && time.Since(h.seen) > idle {
			delete(r.volumes, id)
		}
	}
}
