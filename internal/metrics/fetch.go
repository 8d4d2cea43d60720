package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keymount/internal/provider"
)

// fetches are about providers being asked.
type fetches struct {
	inFlight *prometheus.GaugeVec
	duration *prometheus.HistogramVec
}

func newFetches() fetches {
	return fetches{
		inFlight: gauge("provider_fetches_in_flight", "Requests that the provider is working on.", "provider"),
		duration: histogram("provider_fetch_duration_seconds", "How long the provider took to answer; result is ok or the kind of failure.",
			"provider", "result"),
	}
}

func (f fetches) all() []prometheus.Collector { return []prometheus.Collector{f.inFlight, f.duration} }

// Instrument returns p with its fetches measured. It is for a provider that was found under this name, which from then on
// is a label value. Failures of fetches that have no error_type of their own get upstream's for them.
func (m *Metrics) Instrument(name string, p provider.Provider) provider.Provider {
	if m.providers.add(name) {
		m.fetches.inFlight.WithLabelValues(name)
	}
	return &instrumented{Provider: p, metrics: m, label: m.providerLabel(name)}
}

type instrumented struct {
	provider.Provider
	metrics *Metrics
	label   string
}

var _ provider.TargetWriter = (*instrumented)(nil)

// Fetch implements provider.Provider.
func (p *instrumented) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	start := time.Now()
	inFlight := p.metrics.fetches.inFlight.WithLabelValues(p.label)
	inFlight.Inc()
	result := provider.Internal.String() // of a fetch that panics
	defer func() {
		inFlight.Dec()
		p.metrics.fetches.duration.WithLabelValues(p.label, result).Observe(time.Since(start).Seconds())
	}()
	b, err := p.Provider.Fetch(ctx, req)
	if err == nil {
		result = "ok"
		return b, nil
	}
	result = provider.KindOf(err).String()
	var typed Typed
	if !errors.As(err, &typed) {
		err = fetchError{err}
	}
	return b, err
}

// MayWriteTarget implements provider.TargetWriter.
func (p *instrumented) MayWriteTarget() bool {
	w, ok := p.Provider.(provider.TargetWriter)
	return ok && w.MayWriteTarget()
}

// A fetchError is what a provider said, in its words.
type fetchError struct{ error }

func (e fetchError) Unwrap() error   { return e.error }
func (fetchError) ErrorType() string { return errorProvider }
