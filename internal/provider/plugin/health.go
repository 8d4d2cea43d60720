package plugin

import (
	"context"
	"maps"
	"sync"
	"time"
)

// healthWithin bounds the question to one provider.
const healthWithin = 5 * time.Second

// Run closes connections that nobody uses, and checks the health of providers if that is configured, until ctx is done.
func (f *Folders) Run(ctx context.Context) error {
	var checks <-chan time.Time
	if f.cfg.HealthEvery > 0 {
		t := time.NewTicker(f.cfg.HealthEvery)
		defer t.Stop()
		checks = t.C
	}
	sweeps := time.NewTicker(max(f.cfg.IdleAfter/4, time.Millisecond))
	defer sweeps.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sweeps.C:
			f.closeIdle()
		case <-checks:
			f.CheckHealth(ctx)
		}
	}
}

// CheckHealth asks every provider that is or was lately connected for its version, all at the same time, each within 5 s,
// and logs what has changed since the last check. Nothing else waits for it.
func (f *Folders) CheckHealth(ctx context.Context) {
	f.mu.Lock()
	names := map[string]bool{}
	for _, p := range f.places {
		names[p.name] = true
	}
	f.mu.Unlock()
	var all sync.WaitGroup
	for name := range names {
		all.Go(func() { f.check(ctx, name) })
	}
	all.Wait()
}

func (f *Folders) check(ctx context.Context, name string) {
	within, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	n := &named{folders: f, name: name, asks: true}
	info, err := askVersion(within, n.call)
	if ctx.Err() != nil {
		return // it is the check that ended
	}
	healthy := err == nil
	f.mu.Lock()
	was, known := f.healthy[name]
	if !f.closed {
		f.healthy[name] = healthy
	}
	f.mu.Unlock()
	switch {
	case known && was == healthy:
	case healthy:
		f.cfg.Log.InfoContext(ctx, "provider is healthy", "provider", name,
			"runtime", info.RuntimeName, "version", info.RuntimeVersion)
	default:
		f.cfg.Log.WarnContext(ctx, "provider is not healthy", "provider", name, "err", err.Error())
	}
}

// Health returns how each provider that is or was lately connected fared in the last check.
func (f *Folders) Health() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.healthy)
}
