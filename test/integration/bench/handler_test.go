//go:build integration && linux

package bench

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/rest"

	"keymount/internal/benchdoc"
	"keymount/internal/classes"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/metrics"
	"keymount/internal/node"
	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/token"
	"keymount/internal/volume"
	"keymount/internal/volume/registry"
)

// handlers measures the CSI calls in this process.
func handlers(r *report) {
	r.Helper()
	h := newHandler(r)
	publish, unpublish := samples{}, samples{}
	for range of(500, 50) {
		publish.add(func() { h.publish(r) })
		unpublish.add(func() { h.unpublish(r) })
	}
	both := samples{allocations: publish.allocations + unpublish.allocations}
	for i := range publish.times {
		both.times = append(both.times, publish.times[i]+unpublish.times[i])
	}
	r.handler("publish", publish, 900, "", "")
	r.handler("unpublish", unpublish, 400, "", "")
	r.handler("publish and unpublish", both, 1300, "2 ms", "22.7 ms")

	h.publish(r)
	again := samples{}
	for range of(100, 5) {
		again.batch(200, func() { h.publish(r) })
	}
	r.handler("republish with nothing due", again, 100, "50 us", "a provider call and two API writes")
	if h.fetches != len(publish.times)+1 {
		r.Errorf("the provider was asked %d times, want once for each of %d first mounts", h.fetches, len(publish.times)+1)
	}
	h.unpublish(r)
}

// A handler is the node's service as the daemon joins it, without its API server.
type handler struct {
	service *node.Server
	chain   grpc.UnaryServerInterceptor
	metrics *metrics.Metrics
	request *csi.NodePublishVolumeRequest
	fetches int
}

func newHandler(r *report) *handler {
	r.Helper()
	records, _, err := registry.Open(filepath.Join(r.TempDir(), "records"))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { records.Close() })
	nobody := &rest.Config{Host: "http://127.0.0.1:1"} // a token in the request's secrets is proven by that
	prover, err := token.New(token.Config{API: nobody, DriverName: "bench"})
	if err != nil {
		r.Fatal(err)
	}
	class := &classes.Class{Namespace: "bench", Name: "class", Provider: "trivial", Parameters: map[string]string{"key": "value"}}
	h := &handler{
		metrics: metrics.New(metrics.Config{}),
		chain:   node.Interceptor(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), slog.LevelDebug-1),
	}
	h.service = node.New(node.Config{
		DriverName: "bench", Classes: oneClass{class}, Tokens: prover,
		Rotation: node.Rotation{Interval: time.Hour, MinInterval: time.Hour},
		Publisher: publish.New(publish.Config{
			Provider: func(string) (provider.Provider, error) {
				return h.metrics.Instrument("trivial", trivial{&h.fetches}), nil
			},
			Store: volume.Tmpfs{}, Registry: records, Observer: h.metrics,
		}),
	})
	emulator := emulatortest.Start(r, emulatortest.DefaultSeed("bench"))
	pod := pod{namespace: "bench", name: "pod-1"}
	h.request = pod.publish("class", filepath.Join(r.TempDir(), "target"), emulator)
	return h
}

func (h *handler) publish(r *report) {
	h.call(r, "NodePublishVolume", h.request, func(ctx context.Context, req any) (any, error) {
		return h.service.NodePublishVolume(ctx, req.(*csi.NodePublishVolumeRequest))
	})
}

func (h *handler) unpublish(r *report) {
	req := &csi.NodeUnpublishVolumeRequest{VolumeId: h.request.VolumeId, TargetPath: h.request.TargetPath}
	h.call(r, "NodeUnpublishVolume", req, func(ctx context.Context, req any) (any, error) {
		return h.service.NodeUnpublishVolume(ctx, req.(*csi.NodeUnpublishVolumeRequest))
	})
}

func (h *handler) call(r *report, method string, req any, handle grpc.UnaryHandler) {
	end := h.metrics.Call(method)
	_, err := h.chain(r.Context(), req, &grpc.UnaryServerInfo{FullMethod: "/csi.v1.Node/" + method}, handle)
	end(status.Code(err).String())
	if err != nil {
		r.Fatal(err)
	}
}

// oneClass is a class whose watch works.
type oneClass struct{ *classes.Class }

func (c oneClass) Get(context.Context, string, string) (*classes.Class, error) { return c.Class, nil }

func (oneClass) Use(string, string, string) {}
func (oneClass) Release(string)             {}

// trivial answers one file at once.
type trivial struct{ fetches *int }

func (t trivial) Fetch(context.Context, *provider.Request) (*provider.Bundle, error) {
	*t.fetches++
	return &provider.Bundle{
		Files:    []provider.File{{Path: "a", Mode: 0o644, Contents: provider.Contents("content"), Object: "secret/a"}},
		Versions: []provider.ObjectVersion{{ID: "secret/a", Version: "v1"}},
	}, nil
}

// samples are what one work took each time it was done.
type samples struct {
	times       []time.Duration
	allocations int // the least of all times: what others in this process do only adds to it
}

func (s *samples) add(work func()) { s.batch(1, work) }

// batch does work so often that one time can be measured, and takes the mean.
func (s *samples) batch(times int, work func()) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	for range times {
		work()
	}
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	allocations := int(after.Mallocs-before.Mallocs) / times
	if len(s.times) == 0 || allocations < s.allocations {
		s.allocations = allocations
	}
	s.times = append(s.times, took/time.Duration(times))
}

func fine(times []time.Duration, p int) string {
	d := benchdoc.Percentile(times, p)
	if d < time.Millisecond {
		return fmt.Sprintf("%.0f us", float64(d.Nanoseconds())/1000)
	}
	return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000)
}
