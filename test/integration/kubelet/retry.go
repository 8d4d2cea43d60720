//go:build integration && linux

package kubelet

import "time"

// A Backoff is kubelet's pause between attempts at one operation on a volume (goroutinemap/exponentialbackoff): after each
// failure in a row twice as long, from 0.5 s to 2 minutes and 2 s. Success, or another operation, ends it
// (nestedpendingoperations.go Run).
type Backoff struct {
	operation string
	wait      time.Duration
}

const (
	firstWait   = 500 * time.Millisecond
	longestWait = 2*time.Minute + 2*time.Second
)

func (b *Backoff) done(operation string, err error) {
	switch {
	case err == nil:
		*b = Backoff{}
	case b.operation != operation || b.wait == 0:
		*b = Backoff{operation, firstWait}
	default:
		b.wait = min(2*b.wait, longestWait)
	}
}
