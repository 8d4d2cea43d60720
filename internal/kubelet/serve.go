// Package kubelet is what the node daemon shows to its kubelet besides the CSI calls themselves: the life of the CSI server,
// the plugin registration, health and readiness. It replaces the registrar and the liveness probe that a CSI driver
// otherwise has beside it. It decides nothing about volumes and imports of the module only what opens sockets, and the
// contract for the way in which it makes foreign texts fit a line.
//
// The order is the caller's: Endpoint.Listen, Serve, Prober.Probe, and only then Registration.Run, since kubelet calls the
// driver as soon as it sees the registration socket. Readiness, Prober and Health may be used from any number of
// goroutines; Serve, Registration.Run and Health.Serve once for each value.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
)

// StopWithin is a bound for stopping: Kubernetes kills a pod 30 s after it asked it to stop.
const StopWithin = 20 * time.Second

// Serve serves on l, which it closes, until ctx is done: then it takes no more calls, waits for those in flight, at most
// stopWithin, ends what is left, and returns nil. Any other end is an error, and should end the process: a driver without
// its socket must not look alive.
func Serve(ctx context.Context, l net.Listener, server *grpc.Server, stopWithin time.Duration) error {
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		if err == nil { // somebody else stopped it
			err = grpc.ErrServerStopped
		}
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	// GracefulStop waits for handlers, for ever if one ignores its context; Serve returns after whichever stop is first.
	hard := time.AfterFunc(stopWithin, server.Stop)
	defer hard.Stop()
	go server.GracefulStop()
	if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	return nil
}
