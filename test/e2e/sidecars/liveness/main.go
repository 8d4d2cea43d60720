//go:build integration && linux

// Command liveness stands in for the CSI livenessprobe in the test cluster: it takes its arguments and answers /healthz by
// what the driver answers to Probe.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"keymount/test/e2e/sidecars/sidecar"
)

func main() { os.Exit(sidecar.Main("liveness", run)) }

func run(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("liveness", flag.ContinueOnError)
	flags.SetOutput(stderr)
	address := flags.String("csi-address", "/run/csi/socket", "the driver's socket")
	timeout := flags.Duration("probe-timeout", time.Second, "how long a probe may take")
	endpoint := flags.String("http-endpoint", "", "address to serve /healthz on")
	port := flags.Int("health-port", 9808, "port to serve /healthz on, without --http-endpoint")
	flags.Int("v", 0, "no effect")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *endpoint == "" {
		*endpoint = fmt.Sprintf("0.0.0.0:%d", *port)
	}
	l, err := net.Listen("tcp", *endpoint)
	if err != nil {
		return fmt.Errorf("listening for probes: %w", err)
	}
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	log.Info("serving", "address", l.Addr().String())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), *timeout)
		defer cancel()
		if err := probe(ctx, *address); err != nil {
			log.Warn("the driver is not well", "error", err.Error())
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		io.WriteString(w, "ok")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	// What is being answered is dropped: a pod that ends needs no health.
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving on %s: %w", *endpoint, err)
	}
	return nil
}

// probe connects anew, as kubelet would.
func probe(ctx context.Context, address string) error {
	conn, err := sidecar.Dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{})
	switch {
	case err != nil:
		return fmt.Errorf("probing %s: %w", address, err)
	case answer.GetReady() != nil && !answer.GetReady().GetValue():
		return fmt.Errorf("probing %s: the driver is not ready", address)
	}
	return nil
}
