package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"keymount/internal/socket"
)

const (
	headerWithin   = 5 * time.Second
	httpStopWithin = 5 * time.Second
)

func (d *daemon) serveMetrics(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", d.metrics.Handler())
	return d.serve(ctx, l, mux, 30*time.Second)
}

// servePprof serves what net/http/pprof does, on a mux of its own: whoever reaches it can have the process work for him.
func (d *daemon) servePprof(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return d.serve(ctx, l, mux, 5*time.Minute) // a profile takes as long as it is asked to
}

// serve serves on l until ctx is done, and then answers what is in flight within a bound.
func (d *daemon) serve(ctx context.Context, l net.Listener, handler http.Handler, writeWithin time.Duration) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerWithin, ReadTimeout: headerWithin, WriteTimeout: writeWithin,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(d.cfg.Log.Handler(), slog.LevelDebug),
	}
	socket.Bound(server)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpStopWithin)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	return nil
}
