// Package httpserve serves HTTP to callers of whom nothing is known, such as those of metrics and health: with bounds on
// headers, time and connections, until a context is done. It owns those bounds and the handler of profiles, and imports
// nothing of the module but socket. Serve may be called for several listeners at the same time.
package httpserve

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
	readWithin = 5 * time.Second
	stopWithin = 5 * time.Second
	maxHeader  = 16 << 10
)

// ProfileWithin bounds the answers of Profiles: a profile takes as long as it is asked to.
const ProfileWithin = 5 * time.Minute

// Config is what to serve.
type Config struct {
	Handler http.Handler
	// AnswerWithin bounds the time from a request to the end of its answer.
	AnswerWithin time.Duration
	// OneRequest closes each connection after its answer, so that nobody can hold them open.
	OneRequest bool
	// Log is told at debug level what goes wrong with connections.
	Log *slog.Logger
}

// Serve serves on l, which it closes, until ctx is done, and then answers what is in flight for a few seconds at most. Any
// other end is an error.
func Serve(ctx context.Context, l net.Listener, cfg Config) error {
	server := &http.Server{
		Handler: cfg.Handler, ReadHeaderTimeout: readWithin, ReadTimeout: readWithin, WriteTimeout: readWithin + cfg.AnswerWithin,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	socket.Bound(server)
	server.SetKeepAlivesEnabled(!cfg.OneRequest)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	return nil
}

// Profiles returns what net/http/pprof serves, on a mux of its own: whoever reaches it can have the process work for him, so
// it belongs on the loopback interface.
func Profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
