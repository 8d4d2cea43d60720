package daemon

import (
	"context"
	"net"
	"net/http"
	"time"

	"keymount/internal/httpserve"
)

func (d *daemon) serveMetrics(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", d.metrics.Handler())
	return httpserve.Serve(ctx, l, httpserve.Config{Handler: mux, AnswerWithin: 25 * time.Second, Log: d.cfg.Log})
}

func (d *daemon) servePprof(ctx context.Context, l net.Listener) error {
	return httpserve.Serve(ctx, l, httpserve.Config{Handler: httpserve.Profiles(), AnswerWithin: httpserve.ProfileWithin, Log: d.cfg.Log})
}
