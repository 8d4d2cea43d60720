// Package scrape is what the programs that serve Prometheus metrics have in common: the registry with what runs here, the
// endpoint and its bounds, the names and buckets of the project's own metrics, and those about providers (providers.go). It
// imports the provider contract, never who records or serves. Everything may be used from any number of goroutines.
package scrape

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const namespace = "keymount"

// NewRegistry returns a registry with the metrics of the Go runtime, the process, and which build this is.
func NewRegistry(version, commit string) *prometheus.Registry {
	build := Gauge("build_info", "What runs here; the value is always 1.", "version", "commit", "go_version")
	build.WithLabelValues(strings.ToValidUTF8(version, "?"), strings.ToValidUTF8(commit, "?"), runtime.Version()).Set(1)
	registry := prometheus.NewRegistry()
	registry.MustRegister( // panics only if two instruments have one name, which the tests would show
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build,
	)
	return registry
}

const (
	// maxScrapes bounds the scrapes that are served at a time, and scrapeWithin their time: the endpoint asks nobody who
	// they are.
	maxScrapes   = 4
	scrapeWithin = 10 * time.Second
)

// Within bounds an answer of Handler, with what it takes to send it.
const Within = scrapeWithin + 15*time.Second

// Handler serves the metrics on every path. What cannot be collected is left out and logged; the rest is served.
func Handler(registry *prometheus.Registry, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            scrapeLog{log},
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		Timeout:             scrapeWithin,
	})
}

type scrapeLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) {
	l.log.Warn("scrape of metrics failed", "err", fmt.Sprint(v...))
}

// Buckets resolve from 1 ms, a mount without a network, to kubelet's two minutes.
func Buckets() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}
}

// Counter returns counters under the project's prefix.
func Counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

// Gauge returns gauges under the project's prefix.
func Gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

// Histogram returns histograms under the project's prefix, with Buckets.
func Histogram(name, help string, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: Buckets()}, labels)
}

// Describe returns the description of a metric that is measured elsewhere and asked for at each scrape.
func Describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

// Guarded calls part and survives its panic, which would end the process, since it runs in a goroutine of the registry's.
func Guarded(part func(chan<- prometheus.Metric), out chan<- prometheus.Metric) {
	defer func() {
		if v := recover(); v != nil {
			desc := Describe("collecting", "What could not be collected.")
			out <- prometheus.NewInvalidMetric(desc, fmt.Errorf("collecting panicked with a value of type %T", v))
		}
	}()
	part(out)
}
