package metrics

import (
	"runtime"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"keymount/internal/publish"
	"keymount/internal/scrape"
)

// upstream holds the instruments of upstream's driver, under the names that it really exports (its documentation lists
// others). Two differences are meant: rotated is "true" only where something changed, and histograms have buckets that
// tell fast from slow. The two of synced Secrets, which upstream declares and never records, count what asked the API server.
type upstream struct {
	publish, publishErrors     *prometheus.CounterVec
	unpublish, unpublishErrors *prometheus.CounterVec
	rotation, rotationErrors   *prometheus.CounterVec
	rotationDuration           *prometheus.HistogramVec
	sync                       *prometheus.CounterVec
	syncDuration               *prometheus.HistogramVec
}

func newUpstream() upstream {
	count := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	seconds := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: scrape.Buckets()}, []string{"os_type"})
	}
	return upstream{
		publish:          count("node_publish_total", "Publish calls that succeeded.", "provider", "os_type"),
		publishErrors:    count("node_publish_error_total", "Publish calls that failed, or left the volume as it was.", "provider", "error_type", "os_type"),
		unpublish:        count("node_unpublish_total", "Unpublish calls that succeeded.", "os_type"),
		unpublishErrors:  count("node_unpublish_error_total", "Unpublish calls that failed.", "os_type"),
		rotation:         count("rotation_reconcile_total", "Refreshes of mounted volumes; rotated tells whether anything changed.", "provider", "os_type", "rotated"),
		rotationErrors:   count("rotation_reconcile_error_total", "Refreshes of mounted volumes that failed.", "provider", "error_type", "os_type", "rotated"),
		rotationDuration: seconds("rotation_reconcile_duration_sec", "How long refreshes of mounted volumes took, failed ones too."),
		sync:             count("sync_k8s_secret_total", "Kubernetes Secrets that were synced, or found to be as they should be.", "provider", "os_type"),
		syncDuration:     seconds("k8s_secret_duration_sec", "How long syncs of Kubernetes Secrets took, failed ones too."),
	}
}

func (u upstream) all() []prometheus.Collector {
	return []prometheus.Collector{u.publish, u.publishErrors, u.unpublish, u.unpublishErrors, u.rotation, u.rotationErrors,
		u.rotationDuration, u.sync, u.syncDuration}
}

func (u upstream) observe(o publish.Outcome, from, errorType string) {
	const system = runtime.GOOS
	switch {
	case o.Operation == publish.Unpublishing && o.Err != nil:
		u.unpublishErrors.WithLabelValues(system).Inc()
	case o.Operation == publish.Unpublishing:
		u.unpublish.WithLabelValues(system).Inc()
	case o.Operation == publish.Publishing && o.Err != nil:
		u.publishErrors.WithLabelValues(from, errorType, system).Inc()
	case o.Operation == publish.Publishing:
		u.publish.WithLabelValues(from, system).Inc()
	}
	if o.Operation == publish.Unpublishing || !o.Held || o.Err == nil && !o.Result.Fetched {
		return
	}
	if o.Err != nil {
		u.rotationErrors.WithLabelValues(from, errorType, system, "false").Inc()
	} else {
		u.rotation.WithLabelValues(from, system, strconv.FormatBool(o.Result.Changed())).Inc()
	}
	u.rotationDuration.WithLabelValues(system).Observe(o.Took.Seconds())
}
