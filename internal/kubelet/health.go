package kubelet

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"keymount/internal/httpserve"
	"keymount/internal/socket"
)

// probeWithin bounds a probe. It is less than the 10 s that upstream's liveness probe is given, and than what a server that stops waits for.
const probeWithin = 3 * time.Second

// A Prober asks the driver over its own CSI socket whether it lives, as the livenessprobe sidecar does.
type Prober struct {
	endpoint socket.Endpoint
}

// NewProber returns a prober of the driver that serves endpoint.
func NewProber(endpoint socket.Endpoint) *Prober { return &Prober{endpoint} }

// Probe calls CSI Probe. It connects anew each time: a kept connection would go on working when the socket's name is gone
// and kubelet finds no driver any more.
func (p *Prober) Probe(ctx context.Context) error {
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		return p.endpoint.Dial(ctx)
	}
	conn, err := grpc.NewClient("passthrough:///localhost", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dial), grpc.WithNoProxy())
	if err != nil {
		return fmt.Errorf("probing %s: %w", p.endpoint, err)
	}
	defer conn.Close()
	answer, err := csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{})
	switch {
	case err != nil:
		return fmt.Errorf("probing %s: %s: %s", p.endpoint, status.Code(err), status.Convert(err).Message())
	case answer.GetReady() != nil && !answer.GetReady().GetValue(): // no value means ready
		return fmt.Errorf("probing %s: the driver says that it is not ready", p.endpoint)
	}
	return nil
}

// Health answers /healthz and /readyz. /healthz is for the liveness probe: 200 "ok" if the driver answers a CSI Probe over
// its socket, else 500 and why. /readyz is for the readiness probe: one line per condition, 200 if all are met, else 503.
// Nobody needs to prove who they are, so an answer says nothing about pods or classes, and any number of callers cost one
// probe at a time.
type Health struct {
	probe     func(context.Context) error
	readiness *Readiness
	log       *slog.Logger
	mux       *http.ServeMux
	probes    singleflight.Group
}

// NewHealth returns a handler that calls probe, as a rule a Prober's, with a bound of 3 s. What goes wrong with connections
// is logged to log, at debug level.
func NewHealth(probe func(context.Context) error, readiness *Readiness, log *slog.Logger) *Health {
	h := &Health{probe: probe, readiness: readiness, log: log, mux: http.NewServeMux()}
	h.mux.HandleFunc("GET /healthz", h.healthz)
	h.mux.HandleFunc("GET /readyz", h.readyz)
	return h
}

// ServeHTTP implements http.Handler.
func (h *Health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	h.mux.ServeHTTP(w, r)
}

func (h *Health) healthz(w http.ResponseWriter, r *http.Request) {
	probed := h.probes.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.Background(), probeWithin) // not the first caller's: others wait, too
		defer cancel()
		return nil, h.probe(ctx)
	})
	select {
	case <-r.Context().Done():
	case result := <-probed:
		if result.Err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintln(w, result.Err)
			return
		}
		io.WriteString(w, "ok")
	}
}

func (h *Health) readyz(w http.ResponseWriter, _ *http.Request) {
	checks, ready := h.readiness.Checks()
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	for _, c := range checks {
		mark := "-"
		if c.Met {
			mark = "+"
		}
		fmt.Fprintf(w, "[%s] %s: %s\n", mark, c.Condition, c.Text)
	}
}

// Serve serves on l, which it closes, until ctx is done, and then answers what is in flight for a few seconds at most. Any
// other end is an error.
func (h *Health) Serve(ctx context.Context, l net.Listener) error {
	err := httpserve.Serve(ctx, l, httpserve.Config{Handler: h, AnswerWithin: probeWithin, OneRequest: true, Log: h.log})
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	return nil
}
