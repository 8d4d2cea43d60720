package metrics

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/scrape"
)

var _ publish.Observer = (*Metrics)(nil)

// operations are about whole calls for one volume.
type operations struct {
	total       *prometheus.CounterVec
	failures    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	unfinished  *prometheus.CounterVec
	lastSuccess *prometheus.GaugeVec
}

func newOperations() operations {
	return operations{
		total: scrape.Counter("volume_operations_total", "Calls for one volume, by what came of them.", "operation", "provider", "result"),
		failures: scrape.Counter("volume_failures_total", "Calls for one volume that failed, by the kind of failure and what it left of the volume.",
			"operation", "provider", "kind", "state"),
		duration:    scrape.Histogram("volume_operation_duration_seconds", "How long calls for one volume took, waiting included.", "operation", "result"),
		unfinished:  scrape.Counter("volume_unfinished_total", "What failed after the files were in place: removing old ones, the record, status.", "operation"),
		lastSuccess: scrape.Gauge("provider_last_success_timestamp_seconds", "When a volume last got its content from the provider.", "provider"),
	}
}

func (o operations) all() []prometheus.Collector {
	return []prometheus.Collector{o.total, o.failures, o.duration, o.unfinished, o.lastSuccess}
}

// Observe implements publish.Observer.
func (m *Metrics) Observe(_ context.Context, o publish.Outcome) {
	from := m.providerLabel(o.Volume.Provider)
	errorType := ""
	if o.Err != nil {
		errorType = m.errorType(o.Err)
	}
	m.upstream.observe(o, from, errorType)
	if o.Operation == publish.Unpublishing && o.Err == nil {
		m.secrets.forget(o.Volume.ID, m.cfg.Now())
	}

	operation, result := operationName(o.Operation), resultOf(o)
	m.operations.total.WithLabelValues(operation, from, result).Inc()
	m.operations.duration.WithLabelValues(operation, result).Observe(o.Took.Seconds())
	m.operations.unfinished.WithLabelValues(operation).Add(float64(len(o.Result.Unfinished)))
	switch {
	case o.Err != nil:
		m.operations.failures.WithLabelValues(operation, from, provider.KindOf(o.Err).String(), stateOf(o.Err)).Inc()
	case o.Result.Fetched:
		m.operations.lastSuccess.WithLabelValues(from).Set(float64(m.cfg.Now().UnixMilli()) / 1000)
	}
}

func operationName(op publish.Operation) string {
	switch op {
	case publish.Publishing:
		return "publish"
	case publish.Refreshing:
		return "refresh"
	}
	return "unpublish"
}

func resultOf(o publish.Outcome) string {
	switch {
	case o.Err != nil:
		return "failed"
	case o.Operation == publish.Unpublishing:
		return "removed"
	case o.Result.Busy:
		return "busy"
	case !o.Result.Fetched:
		return "not_due"
	case o.Result.First:
		return "mounted"
	case o.Result.Changed():
		return "changed"
	}
	return "unchanged"
}

func stateOf(err error) string {
	var failed *publish.Error
	if errors.As(err, &failed) {
		return failed.State.String()
	}
	return "left" // what is not known may be anything
}
