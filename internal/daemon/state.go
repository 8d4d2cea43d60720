package daemon

import (
	"context"
	"errors"
	"path/filepath"

	"keymount/internal/kubelet"
	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/volume"
	"keymount/internal/volume/registry"
)

// recordsFolder is below the state folder, which as a rule is that of the CSI socket.
const recordsFolder = "keymount-volumes"

// state is what outlives the process.
type state struct {
	lock     *registry.Lock // nil where there is no folder
	registry *registry.Registry
}

// openState waits for the driver before this one to end, and reads what it left. A folder that cannot be used costs the
// node its memory and not its driver: volumes are then adopted after a restart, at the cost of one fetch each.
func (d *daemon) openState(ctx context.Context) (*state, error) {
	dir, log := d.cfg.StateDir, d.cfg.Log
	if dir == "" {
		d.readiness.Met(kubelet.LockHeld, "there is no state folder to lock")
		return &state{registry: registry.InMemory()}, nil
	}
	// Once without a wait: who has no /readyz must be told too what the driver waits for.
	once, cancel := context.WithTimeout(ctx, 0)
	lock, err := registry.AcquireLock(once, dir)
	cancel()
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		log.Warn("waiting for the driver that holds the state folder: this one serves as soon as that one has ended", "folder", dir)
		d.readiness.Unmet(kubelet.LockHeld, "waiting for the driver that holds "+dir)
		lock, err = registry.AcquireLock(ctx, dir)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return nil, err
	case err != nil:
		log.Error("the state folder cannot be used: nothing is remembered, and another driver on this node is not noticed",
			"folder", dir, "err", err)
		d.readiness.Met(kubelet.LockHeld, "the state folder cannot be used, see the log")
		return &state{registry: registry.InMemory()}, nil
	}
	records, warnings, err := registry.Open(filepath.Join(dir, recordsFolder))
	if err != nil {
		log.Error("the records of volumes cannot be used: nothing is remembered", "folder", dir, "err", err)
		records = registry.InMemory()
	}
	for _, w := range warnings {
		log.Warn("record ignored", "err", w)
	}
	d.readiness.Met(kubelet.LockHeld, "holding "+dir)
	st := &state{lock: lock, registry: records}
	d.takeOver(st)
	return st, nil
}

// takeOver forgets volumes that are gone, watches the classes of the others, and looks after their Secrets.
func (d *daemon) takeOver(st *state) {
	for _, rec := range st.registry.All() {
		if status, err := d.tmpfs().Inspect(rec.Target); err == nil && status.State == volume.Absent {
			if err := st.registry.Delete(rec.Volume); err != nil {
				d.cfg.Log.Warn("a record of a volume that is gone cannot be removed", "volume", rec.Volume, "err", err)
			}
			continue
		}
		if d.cfg.Rotation.Enabled || rec.Secrets {
			d.classes.Use(rec.Volume, rec.Class.Namespace, rec.Class.Name)
		}
		if rec.Secrets {
			d.secrets.TakeOver(volumeOf(&rec), rec.LastSuccess)
		}
	}
}

// volumeOf is as much of a volume as its record tells.
func volumeOf(rec *registry.Record) *publish.Volume {
	v := &publish.Volume{ID: rec.Volume, Target: rec.Target, Provider: rec.Provider, Class: publish.Class(rec.Class)}
	v.Request.Pod = provider.Pod{Namespace: rec.Class.Namespace, Name: rec.Pod.Name, UID: rec.Pod.UID}
	return v
}

func (s *state) close() {
	s.registry.Close()
	if s.lock != nil {
		s.lock.Release()
	}
}

// targets are those of all volumes that are known.
func (s *state) targets() []string {
	records := s.registry.All()
	targets := make([]string, len(records))
	for i, rec := range records {
		targets[i] = rec.Target
	}
	return targets
}
