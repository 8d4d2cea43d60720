package providerd

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
	"keymount/internal/scrape"
)

// Instruments are the metrics of a provider's process: those of upstream's Azure provider under their names, and beside them
// a clean set that begins with keymount_. Every label is a closed set. Upstream puts names of objects and whole texts of
// errors into three of its labels, without bound; they are kept, so that queries by them go on working, and hold the kind of
// the failure, and nothing for the object.
type Instruments struct {
	registry *prometheus.Registry
	fetches  scrape.Fetches
	vault    *prometheus.HistogramVec
	calls    *prometheus.HistogramVec
}

// NewInstruments returns instruments on a registry of their own. The name of the provider, and the service that upstream's
// calls itself, are in the labels of upstream's metrics.
func NewInstruments(name, service, version string) *Instruments {
	upstream := func(metric, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metric, Help: help, Buckets: upstreamBuckets(),
			ConstLabels: prometheus.Labels{"provider": name, "os_type": runtime.GOOS, "service_name": service},
		}, labels)
	}
	i := &Instruments{
		registry: scrape.NewRegistry(version, ""),
		fetches:  scrape.NewFetches(),
		vault: upstream("keyvault_request", "How many seconds an object took to be read; error is the kind of failure.",
			"object_type", "object_name", "error"),
		calls: upstream("grpc_request", "How many seconds a call over the socket took to be answered; grpc_message is the kind of failure.",
			"grpc_method", "grpc_code", "grpc_message"),
	}
	i.fetches.Expect(name)
	i.registry.MustRegister(append(i.fetches.Collectors(), i.vault, i.calls)...)
	return i
}

// upstreamBuckets are upstream's, with those that tell a warm read from a cold one, and kubelet's patience.
func upstreamBuckets() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .2, .3, .4, .5, 1, 1.5, 2, 2.5, 3, 5, 10, 15, 30, 60, 120}
}

// Read notes what came of one object. The type must be one of a closed set.
func (i *Instruments) Read(objectType string, took time.Duration, err error) {
	failure := ""
	if err != nil {
		failure = provider.KindOf(err).String()
	}
	i.vault.WithLabelValues(objectType, "", failure).Observe(took.Seconds())
}

// answered notes what came of one call over the socket.
func (i *Instruments) answered(a plugin.Answer) {
	i.calls.WithLabelValues(a.Method, a.Code, a.Kind).Observe(a.Took.Seconds())
}

// instrument returns p with its fetches measured, and has what it counts itself exported.
func (i *Instruments) instrument(name string, p provider.Provider) provider.Provider {
	if m, ok := p.(provider.Meter); ok {
		i.registry.MustRegister(metered{name: m})
	}
	return &measured{p, i.fetches, name}
}

// metered collects what providers count, at each scrape.
type metered map[string]provider.Meter

// Describe implements prometheus.Collector.
func (m metered) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m metered) Collect(out chan<- prometheus.Metric) {
	scrape.Guarded(func(out chan<- prometheus.Metric) { scrape.Meters(m, out) }, out)
}

type measured struct {
	next    provider.Provider
	fetches scrape.Fetches
	name    string
}

// errPanicked is what came of a fetch that did not return.
var errPanicked = errors.New("panicked")

// Fetch implements provider.Provider.
func (m *measured) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	end, result := m.fetches.Begin(m.name), errPanicked
	defer func() { end(result) }()
	b, err := m.next.Fetch(ctx, req)
	result = err
	return b, err
}
