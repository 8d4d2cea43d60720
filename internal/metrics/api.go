package metrics

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keymount/internal/scrape"
)

// api is about requests to the API server.
type api struct {
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newAPI() api {
	return api{
		total: scrape.Counter("api_requests_total", "Requests to the API server; code is \"error\" where there was no answer.",
			"verb", "resource", "code"),
		duration: scrape.Histogram("api_request_duration_seconds", "How long the API server took to answer, until the body began; without watches.",
			"verb", "resource"),
	}
}

func (a api) all() []prometheus.Collector { return []prometheus.Collector{a.total, a.duration} }

// APIRequests returns next with its requests counted; it is for rest.Config.Wrap.
func (m *Metrics) APIRequests(next http.RoundTripper) http.RoundTripper {
	return &countedTransport{next: next, api: m.api}
}

type countedTransport struct {
	next http.RoundTripper
	api  api
}

// WrappedRoundTripper lets client-go find the transport below.
func (t *countedTransport) WrappedRoundTripper() http.RoundTripper { return t.next }

// RoundTrip implements http.RoundTripper.
func (t *countedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	verb, resource := describe(req)
	start := time.Now()
	resp, err := t.next.RoundTrip(req)
	code := "error"
	if err == nil {
		code = codeLabel(resp.StatusCode)
	}
	t.api.total.WithLabelValues(verb, resource, code).Inc()
	if verb != "watch" {
		t.api.duration.WithLabelValues(verb, resource).Observe(time.Since(start).Seconds())
	}
	return resp, err
}

// codeLabel is the status where it is one that HTTP knows, else its class.
func codeLabel(status int) string {
	switch {
	case http.StatusText(status) != "":
		return strconv.Itoa(status)
	case status >= 100 && status < 600:
		return strconv.Itoa(status/100) + "xx"
	}
	return "other"
}

// resources are those that a driver may have to do with.
func resources() []string {
	return []string{"pods", "events", "secrets", "serviceaccounts", "nodes", "csidrivers", "secretproviderclasses",
		"secretproviderclasspodstatuses", "customresourcedefinitions"}
}

// describe says in Kubernetes' terms what a request is: paths are /api/v1/... or /apis/GROUP/VERSION/..., then
// namespaces/NAMESPACE/ or not, then RESOURCE or RESOURCE/NAME.
func describe(req *http.Request) (verb, resource string) {
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) > 2:
		parts = parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		parts = parts[3:]
	default: // discovery, keys, health
		return verbOf(req, true), oneOf([]string{"openid", "version", "livez", "readyz"}, parts[0])
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		parts = parts[2:]
	}
	return verbOf(req, len(parts) > 1), oneOf(resources(), parts[0])
}

func verbOf(req *http.Request, named bool) string {
	switch req.Method {
	case http.MethodGet, "":
		watch := req.URL.Query().Get("watch")
		switch {
		case watch == "true" || watch == "1":
			return "watch"
		case named:
			return "get"
		}
		return "list"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	return "other"
}
