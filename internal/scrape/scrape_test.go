package scrape_test

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"keymount/internal/provider"
	"keymount/internal/scrape"
)

type meter struct {
	provider.Provider
	measures provider.Measures
}

func (m meter) Measure() provider.Measures { return m.measures }

// collector collects what a function sends.
type collector func(chan<- prometheus.Metric)

func (collector) Describe(chan<- *prometheus.Desc)       {}
func (c collector) Collect(out chan<- prometheus.Metric) { scrape.Guarded(c, out) }

func scraped(t *testing.T, registry *prometheus.Registry, log *slog.Logger) string {
	t.Helper()
	rec := httptest.NewRecorder()
	scrape.Handler(registry, log).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if rec.Code != 200 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

func TestProviders(t *testing.T) {
	registry, fetches := scrape.NewRegistry("v1\xff", "abc"), scrape.NewFetches()
	registry.MustRegister(fetches.Collectors()...)
	registry.MustRegister(collector(func(out chan<- prometheus.Metric) {
		scrape.Meters(map[string]provider.Meter{"p": meter{nil, provider.Measures{Reads: 1, SharedReads: 2, Throttled: 3, Tokens: 4, TokenFailures: 5}}}, out)
	}))
	fetches.Expect("idle")
	fetches.Begin("p")
	fetches.Begin("p")(nil)
	fetches.Begin("p")(&provider.Error{Kind: provider.Denied})
	fetches.Begin("p")(errors.New("hunter2"))
	text := scraped(t, registry, slog.New(slog.DiscardHandler))
	for _, want := range []string{
		`keymount_build_info{commit="abc",go_version="go`, `,version="v1?"} 1`,
		`keymount_provider_fetches_in_flight{provider="idle"} 0`, `keymount_provider_fetches_in_flight{provider="p"} 1`,
		`keymount_provider_fetch_duration_seconds_count{provider="p",result="ok"} 1`,
		`keymount_provider_fetch_duration_seconds_count{provider="p",result="` + provider.Denied.String() + `"} 1`,
		`keymount_provider_fetch_duration_seconds_count{provider="p",result="` + provider.Internal.String() + `"} 1`,
		`keymount_provider_reads_total{provider="p"} 1`, `keymount_provider_shared_reads_total{provider="p"} 2`,
		`keymount_provider_throttled_total{provider="p"} 3`, `keymount_provider_token_fetches_total{provider="p",result="ok"} 4`,
		`keymount_provider_token_fetches_total{provider="p",result="failed"} 5`, "go_goroutines ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, "hunter2") {
		t.Error("an error's text is in the metrics")
	}
}

// What is asked at a scrape may panic: the rest is served, and what was thrown is not repeated.
func TestGuarded(t *testing.T) {
	registry := scrape.NewRegistry("", "")
	registry.MustRegister(collector(func(chan<- prometheus.Metric) { panic("hunter2") }))
	var log strings.Builder
	text := scraped(t, registry, slog.New(slog.NewTextHandler(&log, nil)))
	if !strings.Contains(text, "keymount_build_info") || !strings.Contains(log.String(), "a value of type string") ||
		strings.Contains(text+log.String(), "hunter2") {
		t.Errorf("served %s\nlogged %s", text, log.String())
	}
}
