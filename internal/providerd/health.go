package providerd

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"keymount/internal/provider/plugin"
	"keymount/internal/socket"
)

// health answers HealthPath, for the liveness probe, and ReadyPath, for the readiness probe: 200 "ok" if the provider
// answers a Version call over its own socket, else 503 and why. A provider that is stopping is not ready, though it may still
// live. Nobody needs to prove who they are, so an answer says nothing about pods or classes, and any number of callers cost
// one call at a time.
type health struct {
	at       socket.Endpoint
	path     string
	within   time.Duration
	stopping *atomic.Bool
	asking   singleflight.Group
}

func newHealth(cfg Config, stopping *atomic.Bool) *health {
	return &health{at: cfg.Endpoint, path: cfg.HealthPath, within: cfg.HealthWithin, stopping: stopping}
}

// ServeHTTP implements http.Handler.
func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	switch {
	case r.URL.Path != h.path && r.URL.Path != ReadyPath:
		http.NotFound(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		header.Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
	case r.URL.Path == ReadyPath && h.stopping.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "stopping\n")
	default:
		h.answer(w, r)
	}
}

func (h *health) answer(w http.ResponseWriter, r *http.Request) {
	asked := h.asking.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.Background(), h.within) // not the first caller's: others wait, too
		defer cancel()
		return plugin.Ask(ctx, h.at)
	})
	select {
	case <-r.Context().Done():
	case result := <-asked:
		if result.Err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, result.Err)
			return
		}
		io.WriteString(w, "ok")
	}
}
