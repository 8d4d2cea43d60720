// Package metrics holds every instrument of the node daemon: those of upstream's driver under their names, and beside them
// a clean set that begins with keymount_.
//
// It owns names, labels and buckets, and turns outcomes and errors into labels. Every label is a closed or bounded set:
// names of pods, classes and objects, and texts of errors, are in none of them, and neither is a name of a provider that
// nobody has found on this node. It imports the provider contract and publish for its outcomes, never who records or
// serves. Nothing in it ends the process; everything may be used from any number of goroutines.
package metrics

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keymount/internal/provider"
	"keymount/internal/scrape"
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
	secrets    *secrets
	fetches    scrape.Fetches
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
		cfg: cfg, registry: scrape.NewRegistry(cfg.Version, cfg.Commit),
		providers:  names{most: maxProviders},
		codes:      names{most: maxCodes},
		upstream:   newUpstream(),
		operations: newOperations(),
		secrets:    newSecrets(),
		fetches:    scrape.NewFetches(),
		calls:      newCalls(),
		api:        newAPI(),
	}
	for name := range cfg.Meters {
		m.providers.add(name)
	}
	m.registry.MustRegister(&scraped{m}) // panics only if two instruments have one name, which the tests would show
	for _, group := range []interface{ all() []prometheus.Collector }{m.upstream, m.operations, m.secrets, m.calls, m.api} {
		m.registry.MustRegister(group.all()...)
	}
	m.registry.MustRegister(m.fetches.Collectors()...)
	return m
}

// Handler serves the metrics on every path. What cannot be collected is left out and logged; the rest is served.
func (m *Metrics) Handler() http.Handler { return scrape.Handler(m.registry, m.cfg.Log) }

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
