package scrape

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keymount/internal/provider"
)

// Fetches are about a provider being asked.
type Fetches struct {
	inFlight *prometheus.GaugeVec
	duration *prometheus.HistogramVec
}

// NewFetches returns instruments that are registered nowhere yet.
func NewFetches() Fetches {
	return Fetches{
		inFlight: Gauge("provider_fetches_in_flight", "Requests that the provider is working on.", "provider"),
		duration: Histogram("provider_fetch_duration_seconds", "How long the provider took to answer; result is ok or the kind of failure.",
			"provider", "result"),
	}
}

// Collectors are what to register.
func (f Fetches) Collectors() []prometheus.Collector {
	return []prometheus.Collector{f.inFlight, f.duration}
}

// Expect lets a provider's gauge be seen before its first fetch. Names become labels: the caller bounds them.
func (f Fetches) Expect(name string) { f.inFlight.WithLabelValues(name) }

// Begin notes the beginning of a fetch; end notes its end with the error that came of it, and must be called. A fetch that
// panics is to end with an error that is no *provider.Error.
func (f Fetches) Begin(name string) (end func(error)) {
	start := time.Now()
	inFlight := f.inFlight.WithLabelValues(name)
	inFlight.Inc()
	return func(err error) {
		inFlight.Dec()
		result := "ok"
		if err != nil {
			result = provider.KindOf(err).String()
		}
		f.duration.WithLabelValues(name, result).Observe(time.Since(start).Seconds())
	}
}

// Meters sends what providers count themselves, by their names, to a collector's channel.
func Meters(meters map[string]provider.Meter, out chan<- prometheus.Metric) {
	tokens := Describe("provider_token_fetches_total", "Access tokens that the provider asked for.", "provider", "result")
	for name, meter := range meters {
		count := meter.Measure()
		for _, c := range []struct {
			desc  *prometheus.Desc
			value uint64
			more  []string
		}{
			{Describe("provider_reads_total", "Requests that the provider sent for objects, every try and page.", "provider"), count.Reads, nil},
			{Describe("provider_shared_reads_total", "Reads that needed no request, since another read served them.", "provider"), count.SharedReads, nil},
			{Describe("provider_throttled_total", "Requests that were refused because there were too many.", "provider"), count.Throttled, nil},
			{tokens, count.Tokens, []string{"ok"}},
			{tokens, count.TokenFailures, []string{"failed"}},
		} {
			labels := append([]string{name}, c.more...)
			out <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(c.value), labels...)
		}
	}
}
