package metrics

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// scraped collects what is measured elsewhere, at each scrape.
type scraped struct{ m *Metrics }

func describeAs(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

// Describe implements prometheus.Collector: what comes depends on the configuration, so nothing is promised.
func (s *scraped) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *scraped) Collect(out chan<- prometheus.Metric) {
	for _, part := range []func(chan<- prometheus.Metric){s.volumes, s.health, s.meters, s.events} {
		s.guarded(part, out)
	}
}

// guarded survives a panic of what is asked, which would end the process, since it runs in a goroutine of the registry's.
func (s *scraped) guarded(part func(chan<- prometheus.Metric), out chan<- prometheus.Metric) {
	defer func() {
		if v := recover(); v != nil {
			desc := describeAs("collecting", "What could not be collected.")
			out <- prometheus.NewInvalidMetric(desc, fmt.Errorf("collecting panicked with a value of type %T", v))
		}
	}()
	part(out)
}

func (s *scraped) volumes(out chan<- prometheus.Metric) {
	if s.m.cfg.Volumes == nil {
		return
	}
	count, bytes := map[string]int{}, map[string]int64{}
	for _, v := range s.m.cfg.Volumes() {
		label := s.m.providerLabel(v.Provider)
		count[label]++
		bytes[label] += v.Bytes
	}
	number := describeAs("volumes", "Volumes that are mounted.", "provider")
	size := describeAs("volume_bytes", "Bytes of the files in mounted volumes.", "provider")
	for label := range count {
		out <- prometheus.MustNewConstMetric(number, prometheus.GaugeValue, float64(count[label]), label)
		out <- prometheus.MustNewConstMetric(size, prometheus.GaugeValue, float64(bytes[label]), label)
	}
}

func (s *scraped) health(out chan<- prometheus.Metric) {
	if s.m.cfg.Health == nil {
		return
	}
	desc := describeAs("provider_healthy", "Whether the provider answered the last health check.", "provider")
	for name, healthy := range s.m.cfg.Health() {
		if s.m.providerLabel(name) != name {
			continue
		}
		value := 0.0
		if healthy {
			value = 1
		}
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, name)
	}
}

func (s *scraped) meters(out chan<- prometheus.Metric) {
	tokens := describeAs("provider_token_fetches_total", "Access tokens that the provider asked for.", "provider", "result")
	for name, meter := range s.m.cfg.Meters {
		if s.m.providerLabel(name) != name {
			continue
		}
		count := meter.Measure()
		for _, c := range []struct {
			desc  *prometheus.Desc
			value uint64
			more  []string
		}{
			{describeAs("provider_reads_total", "Requests that the provider sent for objects, every try and page.", "provider"), count.Reads, nil},
			{describeAs("provider_shared_reads_total", "Reads that needed no request, since another read served them.", "provider"), count.SharedReads, nil},
			{describeAs("provider_throttled_total", "Requests that were refused because there were too many.", "provider"), count.Throttled, nil},
			{tokens, count.Tokens, []string{"ok"}},
			{tokens, count.TokenFailures, []string{"failed"}},
		} {
			labels := append([]string{name}, c.more...)
			out <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(c.value), labels...)
		}
	}
}

func (s *scraped) events(out chan<- prometheus.Metric) {
	if s.m.cfg.EventsDropped == nil {
		return
	}
	desc := describeAs("events_dropped_total", "Kubernetes Events that were not sent because there were too many.")
	out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(s.m.cfg.EventsDropped()))
}
