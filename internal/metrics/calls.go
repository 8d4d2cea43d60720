package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keymount/internal/scrape"
)

// calls are about kubelet's calls of the CSI services.
type calls struct {
	inFlight *prometheus.GaugeVec
	duration *prometheus.HistogramVec
}

func newCalls() calls {
	return calls{
		inFlight: scrape.Gauge("csi_calls_in_flight", "CSI calls that are being answered.", "method"),
		duration: scrape.Histogram("csi_call_duration_seconds", "How long CSI calls took, by the gRPC code of the answer.", "method", "code"),
	}
}

func (c calls) all() []prometheus.Collector { return []prometheus.Collector{c.inFlight, c.duration} }

// methods and codes are those that the CSI services and gRPC have; anything else is "other".
func methods() []string {
	return []string{"GetPluginInfo", "GetPluginCapabilities", "Probe", "NodeStageVolume", "NodeUnstageVolume", "NodePublishVolume",
		"NodeUnpublishVolume", "NodeGetVolumeStats", "NodeExpandVolume", "NodeGetCapabilities", "NodeGetInfo"}
}

func codes() []string {
	return []string{"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists",
		"PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal",
		"Unavailable", "DataLoss", "Unauthenticated"}
}

func oneOf(all []string, value string) string {
	if slices.Contains(all, value) {
		return value
	}
	return "other"
}

// Call notes the beginning of a CSI call, such as NodePublishVolume; end notes its end with the name of its gRPC code, and
// must be called.
func (m *Metrics) Call(method string) (end func(code string)) {
	method = oneOf(methods(), method)
	start := time.Now()
	inFlight := m.calls.inFlight.WithLabelValues(method)
	inFlight.Inc()
	return func(code string) {
		inFlight.Dec()
		m.calls.duration.WithLabelValues(method, oneOf(codes(), code)).Observe(time.Since(start).Seconds())
	}
}
