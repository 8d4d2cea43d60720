// Package podstatus tells the cluster what each volume of this node holds: one SecretProviderClassPodStatus per volume, by
// upstream's name wherever that is free, written only when something changed, with conditions that say whether the last
// refresh succeeded, and whether the Kubernetes Secrets that the class asks for could be made of it.
//
// It implements publish.StatusRecorder, publish.SecretObserver, and publish.Observer to learn which volumes are gone. It owns the names of the
// objects, their content and the retries; it imports publish, the provider contract, the API types and client-go's dynamic
// client, and never reads a pod. Every method may be called from any number of goroutines.
package podstatus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

const (
	// writeTimeout bounds what one attempt may take, reads and conflicts included: a publish waits for it.
	writeTimeout = 5 * time.Second
	// maxVolumes bounds the bookkeeping, far above what a node has. A volume that falls out costs a read at its next refresh.
	maxVolumes = 10_000
	// maxObject is the most that the objects of one volume may take; the API server stores nothing beyond 1.5 MiB.
	maxObject = 1 << 20
	// maxTries bounds how often one attempt starts anew because others write the same object.
	maxTries = 4
	// maxMessage bounds the message of a condition, in bytes.
	maxMessage = 1024
)

// Config says how to reach the API server, and who writes.
type Config struct {
	// API is the API server. Required.
	API *rest.Config
	// NodeID is the label by which the objects of one node are found. One that is too long for a label is left out.
	NodeID string
	Log    *slog.Logger
	// FirstRetry and LastRetry bound the wait before a write that failed is tried again; 0 means 1 s and 2 min.
	FirstRetry, LastRetry time.Duration
	// Now is the clock that goes into conditions; nil means time.Now.
	Now func() time.Time
}

// A Recorder writes the status objects of one node.
type Recorder struct {
	cfg    Config
	client dynamic.Interface
	// due is told that a volume's write waits to be repeated; its one place is enough.
	due chan struct{}

	mu      sync.Mutex
	volumes map[string]*record // by volume id
	// dropsConditions says that the cluster's definition of the object has none.
	dropsConditions bool
	// refused says that the log has it that objects cannot be written which Run was the first to write.
	refused bool
}

// New returns a Recorder. It sends nothing.
func New(cfg Config) (*Recorder, error) {
	client, err := dynamic.NewForConfig(cfg.API)
	if err != nil {
		return nil, fmt.Errorf("making a client for SecretProviderClassPodStatuses: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if problems := validation.IsValidLabelValue(cfg.NodeID); len(problems) > 0 {
		cfg.Log.Warn("status objects do not name this node: its name is no label value", "node", cfg.NodeID, "problem", problems[0])
		cfg.NodeID = ""
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.FirstRetry <= 0 {
		cfg.FirstRetry = time.Second
	}
	if cfg.LastRetry <= 0 {
		cfg.LastRetry = 2 * time.Minute
	}
	return &Recorder{cfg: cfg, client: client, due: make(chan struct{}, 1), volumes: map[string]*record{}}, nil
}

// RecordStatus makes the volume's object say what the volume holds. It asks nobody when the object already says so.
//
// What could not be written within some seconds is an error, and Run goes on trying.
func (r *Recorder) RecordStatus(ctx context.Context, v *publish.Volume, res *publish.Result) error {
	if err := nameable(v); err != nil {
		return err
	}
	objects, err := objectsOf(v, res.Versions)
	if err != nil {
		return err
	}
	rec := r.record(v)
	r.mu.Lock()
	rec.first = rec.first || res.First
	rec.want.objects = objects
	rec.want.conditions[refreshed] = condition{status: "True", reason: "Refreshed", message: "the volume holds what the provider last gave"}
	rec.noteClass(v)
	rec.changes++
	r.mu.Unlock()
	return r.write(ctx, rec)
}

// RecordFailure makes the condition of the volume's object say why the volume could not be refreshed. Where there is no
// object yet there is nothing to say it of, and a call that was broken off says nothing about the volume.
func (r *Recorder) RecordFailure(ctx context.Context, v *publish.Volume, cause error) error {
	if errors.Is(cause, context.Canceled) {
		return nil
	}
	if err := nameable(v); err != nil {
		return err
	}
	rec := r.record(v)
	r.mu.Lock()
	rec.want.conditions[refreshed] = condition{status: "False", reason: reasonOf(provider.KindOf(cause)), message: provider.OneLine(cause.Error(), maxMessage)}
	rec.changes++
	r.mu.Unlock()
	return r.write(ctx, rec)
}

// Observe forgets volumes that were unpublished: it implements publish.Observer.
func (r *Recorder) Observe(_ context.Context, o publish.Outcome) {
	if o.Operation == publish.Unpublishing && o.Err == nil {
		r.Forget(o.Volume.ID)
	}
}

// Forget drops what is remembered of a volume, and what is still to be written of it. Its object goes with its pod.
func (r *Recorder) Forget(volumeID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.volumes, volumeID)
}
