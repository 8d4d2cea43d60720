// Package providerd is the process of a provider that drivers reach over a socket: it serves the provider protocol, and
// beside it health, metrics and profiles. It owns the order in which they start and stop and what is measured; the provider
// and every decision about secrets come from the caller. It imports no provider, and only programs import it. Run is called
// once per Config.
package providerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"keymount/internal/httpserve"
	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
	"keymount/internal/scrape"
	"keymount/internal/socket"
)

// Config is what the operator decides, checked and typed, and the provider.
type Config struct {
	// Name is how classes name the provider.
	Name string
	// Provider answers the requests. What it counts is exported if it is a provider.Meter.
	Provider provider.Provider
	// Info is what the Version call answers.
	Info plugin.Info
	// Endpoint is where the provider protocol is served.
	Endpoint socket.Endpoint
	// Health, Metrics and Profiles are host:port of the three HTTP servers; "" switches one off.
	Health, Metrics, Profiles string
	// HealthPath is the path of the liveness answer, and HealthWithin the time that a provider may take to say that it lives.
	HealthPath   string
	HealthWithin time.Duration
	// Instruments are those of the metrics.
	Instruments *Instruments
	// Log gets every line.
	Log *slog.Logger
}

// ReadyPath is the path of the readiness answer, beside HealthPath.
const ReadyPath = "/readyz"

// Run serves until ctx is done. It then takes no more calls, lets those in flight end within a bound, and returns nil. A part
// that cannot go on ends all of them: a provider that serves half of what it should must be seen to be gone.
func Run(ctx context.Context, cfg Config) error {
	// The ports come first: a process that cannot have them must not take the socket from one that serves.
	var stopping atomic.Bool
	parts, err := listen(cfg, &stopping)
	if err != nil {
		return err
	}
	l, err := cfg.Endpoint.Listen()
	if err != nil {
		return errors.Join(err, closeAll(parts))
	}
	if !cfg.Endpoint.IsUnix() {
		cfg.Log.Warn("secrets are served in the clear to whoever reaches this port: prefer a unix socket", "address", l.Addr().String())
	}
	line := []any{"address", l.Addr().String(), "version", cfg.Info.RuntimeVersion}
	for _, p := range parts {
		line = append(line, p.name, p.listener.Addr().String())
	}
	cfg.Log.Info("serving", line...)

	server := plugin.NewServer(cfg.Instruments.instrument(cfg.Name, cfg.Provider), cfg.Info, cfg.Log)
	server.OnAnswer(cfg.Instruments.answered)
	// Health and metrics are served until the last call has ended.
	beside, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range parts {
		group.Go(func() error { return httpserve.Serve(beside, p.listener, p.http) })
	}
	context.AfterFunc(ctx, func() { stopping.Store(true) })
	group.Go(func() error {
		defer stop()
		return server.Serve(ctx, l)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	cfg.Log.Info("stopped")
	return nil
}

// A part is one of the HTTP servers, listening.
type part struct {
	name     string
	listener net.Listener
	http     httpserve.Config
}

func listen(cfg Config, stopping *atomic.Bool) ([]part, error) {
	health := newHealth(cfg, stopping)
	metrics := http.NewServeMux()
	metrics.Handle("GET /metrics", scrape.Handler(cfg.Instruments.registry, cfg.Log))
	var parts []part
	for _, s := range []struct {
		name, address string
		http          httpserve.Config
	}{
		{"health", cfg.Health, httpserve.Config{Handler: health, AnswerWithin: cfg.HealthWithin, OneRequest: true, Log: cfg.Log}},
		{"metrics", cfg.Metrics, httpserve.Config{Handler: metrics, AnswerWithin: scrape.Within, Log: cfg.Log}},
		{"profiles", cfg.Profiles, httpserve.Config{Handler: httpserve.Profiles(), AnswerWithin: httpserve.ProfileWithin, Log: cfg.Log}},
	} {
		if s.address == "" {
			continue
		}
		l, err := net.Listen("tcp", s.address)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("serving %s (give another port, or 0 for none): %w", s.name, err), closeAll(parts))
		}
		parts = append(parts, part{s.name, l, s.http})
	}
	return parts, nil
}

func closeAll(parts []part) error {
	var errs []error
	for _, p := range parts {
		errs = append(errs, p.listener.Close())
	}
	return errors.Join(errs...)
}
