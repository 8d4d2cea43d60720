// Package metrics holds every instrument of the node daemon: those of upstream's driver under their names, and beside them
// a clean set that begins with keymount_.
//
// It owns names, labels and buckets, and turns outcomes and errors into labels. Every label is a closed or bounded set:
// names of pods, classes and objects, and texts of errors, are in none of them, and neither is a name of a provider that
// nobody has found on this node. It imports the provider contract and publish for its outcomes, never who records or
// serves. Nothing in it ends the process; everything may be used from any number of goroutines.
package metrics

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

	"keymount/internal/provider"
)

// Config is what is measured elsewhere and asked for at each scrape, from any goroutine. Everything may be left out, and is
// then not exported.
type Config struct {
	// Version and Commit are those of this program.
	Version, Commit string
	// Volumes returns the volumes that are mounted now.
	Volumes func() []VolumeSize
	// Health returns how each provider behind a socket fared in the last check.
	Health func() map[string]bool
	// Meters are the providers that count what they do, by name.
	Meters map[string]provider.Meter
	// EventsDropped returns how many Events were not sent since the process began.
	EventsDropped func() uint64
	// Now is the clock of timestamps; nil means time.Now.
	Now func() time.Time
	// Log is told of scrapes that failed; nil means nobody is.
	Log *slog.Logger
}

// A VolumeSize is what one mounted volume holds.
type VolumeSize struct {
	Provider string
	Bytes    int64
}

const (
	// maxProviders and maxCodes bound the names of providers, and the codes that they write into their answers, that become
	// label values. A node has a handful of providers.
	maxProviders = 64
	maxCodes     = 32
)

// Metrics are the instruments of one process.
type Metrics struct {
	cfg       Config
	registry  *prometheus.Registry
	providers names
	codes     names

	upstream   upstream
	operations operations
	fetches    fetches
	calls      calls
	api        api
}

// New returns Metrics on a registry of their own, with those of the Go runtime and the process.
func New(cfg Config) *Metrics {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Metrics{
		cfg: cfg, registry: prometheus.NewRegistry(),
		providers:  names{most: maxProviders},
		codes:      names{most: maxCodes},
		upstream:   newUpstream(),
		operations: newOperations(),
		fetches:    newFetches(),
		calls:      newCalls(),
		api:        newAPI(),
	}
	for name := range cfg.Meters {
		m.providers.add(name)
	}
	build := gauge("build_info", "What runs here; the value is always 1.", "version", "commit", "go_version")
	build.WithLabelValues(strings.ToValidUTF8(cfg.Version, "?"), strings.ToValidUTF8(cfg.Commit, "?"), runtime.Version()).Set(1)
	m.registry.MustRegister( // panics only if two instruments have one name, which the tests would show
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build, &scraped{m},
	)
	for _, group := range []interface{ all() []prometheus.Collector }{m.upstream, m.operations, m.fetches, m.calls, m.api} {
		m.registry.MustRegister(group.all()...)
	}
	return m
}

const (
	// maxScrapes bounds the scrapes that are served at a time, and scrapeWithin their time: the endpoint asks nobody who
	// they are.
	maxScrapes   = 4
	scrapeWithin = 10 * time.Second
)

// Handler serves the metrics on every path. What cannot be collected is left out and logged; the rest is served.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog:            scrapeLog{m.cfg.Log},
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

// providerLabel is the label of a provider's name: "" for none, "unknown" for one that nobody has found here.
func (m *Metrics) providerLabel(name string) string {
	switch {
	case name == "":
		return ""
	case m.providers.has(name):
		return name
	}
	return "unknown"
}

// buckets resolve from 1 ms, a mount without a network, to kubelet's two minutes.
func buckets() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}
}

const namespace = "keymount"

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func histogram(name, help string, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets()}, labels)
}
