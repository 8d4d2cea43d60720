package azure

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"keymount/internal/azure/params"
	"keymount/internal/provider"
)

const (
	// minParallel is how many reads of one mount are under way at least: as many as a vault takes at a time, and as many
	// again that are ready to follow.
	minParallel = 64
	// largeMount is how many bytes a mount may read without regard to others: what a driver takes in one answer if nothing
	// else is configured.
	largeMount = 4 << 20
	// maxLarge is how many mounts may be larger at a time. With maxBundle it bounds what the mounts of somebody who has many
	// pods and many secrets take from the node's memory.
	maxLarge = 4
)

// inParallel calls do for 0 to n-1 and returns what each returned. It works itself, with a goroutine for each place that it
// finds free among helpers, which calls within calls share.
func inParallel[T any](log *slog.Logger, helpers chan struct{}, n int, do func(i int) (T, error)) ([]T, []error) {
	values, errs := make([]T, n), make([]error, n)
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			values[i], errs[i] = guarded(log, func() (T, error) { return do(i) })
		}
	}
	var group sync.WaitGroup
	for range n - 1 {
		select {
		case helpers <- struct{}{}:
			group.Go(func() {
				defer func() { <-helpers }()
				work()
			})
			continue
		default:
		}
		break
	}
	work()
	group.Wait()
	return values, errs
}

// room waits until the mount may read o too. A mount that has become large waits for its turn to be so.
func (m *mount) room(ctx context.Context, o *params.Object) error {
	why := "it was not read"
	if m.size.Load() > largeMount {
		m.growing.Lock()
		defer m.growing.Unlock()
		if !m.large {
			select {
			case m.places <- struct{}{}:
				m.large = true
			case <-ctx.Done():
				why = "waiting for other large mounts"
			}
		}
	}
	if ctx.Err() == nil {
		return nil
	}
	e := m.failure(o, provider.Unavailable, why+": "+ctx.Err().Error(), "")
	e.Cause = ctx.Err()
	return e
}

// done gives back what room took.
func (m *mount) done() {
	if m.large {
		<-m.places
	}
}
