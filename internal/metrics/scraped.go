package metrics

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"keymount/internal/provider"
	"keymount/internal/scrape"
)

// scraped collects what is measured elsewhere, or counted anew, at each scrape.
type scraped struct{ m *Metrics }

// Describe implements prometheus.Collector: what comes depends on the configuration, so nothing is promised.
func (s *scraped) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *scraped) Collect(out chan<- prometheus.Metric) {
	for _, part := range []func(chan<- prometheus.Metric){s.volumes, s.secrets, s.health, s.meters, s.events} {
		scrape.Guarded(part, out)
	}
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
	number := scrape.Describe("volumes", "Volumes that are mounted.", "provider")
	size := scrape.Describe("volume_bytes", "Bytes of the files in mounted volumes.", "provider")
	for label := range count {
		out <- prometheus.MustNewConstMetric(number, prometheus.GaugeValue, float64(count[label]), label)
		out <- prometheus.MustNewConstMetric(size, prometheus.GaugeValue, float64(bytes[label]), label)
	}
}

func (s *scraped) secrets(out chan<- prometheus.Metric) {
	desc := scrape.Describe("secrets_out_of_sync", "Kubernetes Secrets whose last sync failed, each counted for each volume that it is made of.", "provider")
	for label, count := range s.m.secrets.outOfSync() {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(count), label)
	}
}

func (s *scraped) health(out chan<- prometheus.Metric) {
	if s.m.cfg.Health == nil {
		return
	}
	desc := scrape.Describe("provider_healthy", "Whether the provider answered the last health check.", "provider")
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
	meters := maps.Clone(s.m.cfg.Meters)
	maps.DeleteFunc(meters, func(name string, _ provider.Meter) bool { return s.m.providerLabel(name) != name })
	scrape.Meters(meters, out)
}

func (s *scraped) events(out chan<- prometheus.Metric) {
	if s.m.cfg.EventsDropped == nil {
		return
	}
	desc := scrape.Describe("events_dropped_total", "Kubernetes Events that were not sent because there were too many.")
	out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(s.m.cfg.EventsDropped()))
}
