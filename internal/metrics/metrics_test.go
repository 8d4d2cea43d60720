package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"keymount/internal/metrics"
	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/volume"
)

// scrape reads the metrics as Prometheus does.
func scrape(t testing.TB, m *metrics.Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	s := httptest.NewServer(m.Handler())
	defer s.Close()
	resp, err := http.Get(s.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	return families
}

// series writes the samples of a family as `{a="b"} 1`, sorted; of histograms the counts.
func series(f *dto.MetricFamily) []string {
	var out []string
	for _, m := range f.GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
		}
		slices.Sort(labels)
		value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		out = append(out, fmt.Sprintf("{%s} %v", strings.Join(labels, ","), value))
	}
	slices.Sort(out)
	return out
}

func wants(t testing.TB, families map[string]*dto.MetricFamily, name string, want ...string) {
	t.Helper()
	for i, w := range want {
		want[i] = strings.ReplaceAll(w, "OS", runtime.GOOS)
	}
	slices.Sort(want)
	if got := series(families[name]); !slices.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", name, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

type fetch func(context.Context, *provider.Request) (*provider.Bundle, error)

func (f fetch) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	return f(ctx, req)
}

func ok(context.Context, *provider.Request) (*provider.Bundle, error) { return &provider.Bundle{}, nil }

type meter struct {
	fetch
	measures provider.Measures
}

func (m meter) Measure() provider.Measures { return m.measures }

// full is everything that can be configured, with one of each recorded.
func full(t testing.TB) *metrics.Metrics {
	m := metrics.New(metrics.Config{
		Version: "v1", Commit: "abc\xff",
		Volumes: func() []metrics.VolumeSize {
			return []metrics.VolumeSize{{"azure", 10}, {"azure", 5}, {"gone", 1}, {"lost", 2}, {"", 3}}
		},
		Health:        func() map[string]bool { return map[string]bool{"aws": true, "vault": false, "never": true} },
		Meters:        map[string]provider.Meter{"azure": meter{ok, provider.Measures{Reads: 1, SharedReads: 2, Throttled: 3, Tokens: 4, TokenFailures: 5}}},
		EventsDropped: func() uint64 { return 6 },
		Now:           func() time.Time { return time.UnixMilli(1_800_000_000_500) },
	})
	m.Instrument("vault", fetch(ok))
	p := m.Instrument("aws", fetch(ok))
	if _, err := p.Fetch(t.Context(), &provider.Request{}); err != nil {
		t.Fatal(err)
	}
	for _, op := range []publish.Operation{publish.Publishing, publish.Refreshing, publish.Unpublishing} {
		for _, o := range []publish.Outcome{
			{},
			{Err: errors.New("x")},
			{Held: true, Err: errors.New("x")},
			{Result: publish.Result{Fetched: true, First: true}},
			{Held: true, Result: publish.Result{Fetched: true, Unfinished: []error{errors.New("x")}}},
			{Held: true, Result: publish.Result{Fetched: true, Change: volume.Change{Added: []string{"f"}}}},
		} {
			o.Operation, o.Volume, o.Took = op, &publish.Volume{Provider: "aws"}, 20*time.Millisecond
			m.Observe(t.Context(), o)
		}
	}
	for _, err := range []*provider.Error{nil, {Message: "x"}} {
		m.ObserveSecret(t.Context(), publish.SecretOutcome{Volume: &publish.Volume{ID: "v", Provider: "aws"}, Secret: "s", Asked: true, Err: err})
	}
	m.Call("NodePublishVolume")("OK")
	m.Call("NodeGetInfo") // it goes on
	get(t, m, "https://api/api/v1/pods", 200, nil)
	return m
}

// Names, types and labels are what dashboards and alerts are made of.
func TestNamesTypesAndLabels(t *testing.T) {
	t.Attr("conformance", "12.6/metric-names")
	families := scrape(t, full(t))
	const counter, gauge, histogram = dto.MetricType_COUNTER, dto.MetricType_GAUGE, dto.MetricType_HISTOGRAM
	table := map[string]struct {
		kind   dto.MetricType
		labels string
	}{
		// Upstream's.
		"node_publish_total":              {counter, "os_type provider"},
		"node_publish_error_total":        {counter, "error_type os_type provider"},
		"node_unpublish_total":            {counter, "os_type"},
		"node_unpublish_error_total":      {counter, "os_type"},
		"rotation_reconcile_total":        {counter, "os_type provider rotated"},
		"rotation_reconcile_error_total":  {counter, "error_type os_type provider rotated"},
		"rotation_reconcile_duration_sec": {histogram, "os_type"},
		"sync_k8s_secret_total":           {counter, "os_type provider"},
		"k8s_secret_duration_sec":         {histogram, "os_type"},
		// Ours.
		"keymount_build_info":                              {gauge, "commit go_version version"},
		"keymount_volume_operations_total":                 {counter, "operation provider result"},
		"keymount_volume_failures_total":                   {counter, "kind operation provider state"},
		"keymount_volume_operation_duration_seconds":       {histogram, "operation result"},
		"keymount_volume_unfinished_total":                 {counter, "operation"},
		"keymount_provider_last_success_timestamp_seconds": {gauge, "provider"},
		"keymount_provider_fetches_in_flight":              {gauge, "provider"},
		"keymount_provider_fetch_duration_seconds":         {histogram, "provider result"},
		"keymount_provider_healthy":                        {gauge, "provider"},
		"keymount_provider_reads_total":                    {counter, "provider"},
		"keymount_provider_shared_reads_total":             {counter, "provider"},
		"keymount_provider_throttled_total":                {counter, "provider"},
		"keymount_provider_token_fetches_total":            {counter, "provider result"},
		"keymount_volumes":                                 {gauge, "provider"},
		"keymount_volume_bytes":                            {gauge, "provider"},
		"keymount_csi_calls_in_flight":                     {gauge, "method"},
		"keymount_csi_call_duration_seconds":               {histogram, "code method"},
		"keymount_api_requests_total":                      {counter, "code resource verb"},
		"keymount_api_request_duration_seconds":            {histogram, "resource verb"},
		"keymount_events_dropped_total":                    {counter, ""},
		"keymount_secret_syncs_total":                      {counter, "provider result"},
		"keymount_secret_sync_failures_total":              {counter, "kind provider"},
		"keymount_secrets_out_of_sync":                     {gauge, "provider"},
	}
	for name, want := range table {
		f := families[name]
		if f == nil || f.GetType() != want.kind || f.GetHelp() == "" || len(f.GetMetric()) == 0 {
			t.Errorf("%s: got %v, want a %v with help", name, f, want.kind)
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName())
			}
			slices.Sort(labels)
			if got := strings.Join(labels, " "); got != want.labels {
				t.Errorf("%s has labels %q, want %q", name, got, want.labels)
			}
		}
	}
	for name := range families {
		if _, ours := table[name]; !ours && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is not in the table", name)
		}
	}
	for _, name := range []string{"go_goroutines", "process_start_time_seconds"} {
		if families[name] == nil && runtime.GOOS == "linux" {
			t.Errorf("%s is missing", name)
		}
	}
	bounds := families["rotation_reconcile_duration_sec"].GetMetric()[0].GetHistogram().GetBucket()
	if first, last := bounds[0].GetUpperBound(), bounds[len(bounds)-2].GetUpperBound(); first != .001 || last != 120 {
		t.Errorf("buckets go from %v to %v", first, last)
	}
}

func TestScrapedValues(t *testing.T) {
	families := scrape(t, full(t))
	wants(t, families, "keymount_volumes", `{provider="azure"} 2`, `{provider="unknown"} 2`, `{provider=""} 1`)
	wants(t, families, "keymount_volume_bytes", `{provider="azure"} 15`, `{provider="unknown"} 3`, `{provider=""} 3`)
	wants(t, families, "keymount_provider_healthy", `{provider="aws"} 1`, `{provider="vault"} 0`)
	wants(t, families, "keymount_provider_reads_total", `{provider="azure"} 1`)
	wants(t, families, "keymount_provider_shared_reads_total", `{provider="azure"} 2`)
	wants(t, families, "keymount_provider_throttled_total", `{provider="azure"} 3`)
	wants(t, families, "keymount_provider_token_fetches_total", `{provider="azure",result="ok"} 4`, `{provider="azure",result="failed"} 5`)
	wants(t, families, "keymount_events_dropped_total", `{} 6`)
	wants(t, families, "keymount_provider_last_success_timestamp_seconds", `{provider="aws"} 1.8000000005e+09`)
	wants(t, families, "keymount_csi_calls_in_flight", `{method="NodePublishVolume"} 0`, `{method="NodeGetInfo"} 1`)
	wants(t, families, "keymount_build_info", fmt.Sprintf(`{commit="abc?",go_version=%q,version="v1"} 1`, runtime.Version()))
}

// Nothing need be configured, and nothing that could be is then exported.
func TestNothingConfigured(t *testing.T) {
	for name := range scrape(t, metrics.New(metrics.Config{})) {
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") && name != "keymount_build_info" {
			t.Errorf("%s is there", name)
		}
	}
}

// What is asked at a scrape may fail; the other metrics are served, and the failure is logged without what was thrown.
func TestCollectingSurvivesPanics(t *testing.T) {
	var log strings.Builder
	m := metrics.New(metrics.Config{
		Volumes:       func() []metrics.VolumeSize { panic("hunter2") },
		EventsDropped: func() uint64 { return 1 },
		Log:           slog.New(slog.NewTextHandler(&log, nil)),
	})
	wants(t, scrape(t, m), "keymount_events_dropped_total", `{} 1`)
	if got := log.String(); !strings.Contains(got, "collecting panicked with a value of type string") || strings.Contains(got, "hunter2") {
		t.Errorf("logged %q", got)
	}
}

// Everything at once, scrapes included.
func TestConcurrentUse(t *testing.T) {
	m := full(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 50 {
				name := fmt.Sprint("p", (i+j)%5)
				m.Instrument(name, fetch(ok)).Fetch(t.Context(), &provider.Request{})
				m.Observe(t.Context(), publish.Outcome{Volume: &publish.Volume{Provider: name}, Err: typed(fmt.Sprint("E", j))})
				m.ObserveSecret(t.Context(), publish.SecretOutcome{Volume: &publish.Volume{ID: name, Provider: name}, Secret: fmt.Sprint(j), Err: &provider.Error{}})
				m.Call("Probe")("OK")
				get(t, m, "https://api/api/v1/pods", 200, nil)
			}
		})
		all.Go(func() { scrape(t, m) })
	}
	all.Wait()
	total := 0.0
	for _, s := range scrape(t, m)["node_publish_error_total"].GetMetric() {
		total += s.GetCounter().GetValue()
	}
	if total != 402 { // two are of full
		t.Errorf("%v failures were counted", total)
	}
}

// Whatever classes and providers name, the number of series stays what it is.
func TestHostileNamesMakeNoSeries(t *testing.T) {
	m := full(t)
	failing := m.Instrument("bad", fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) {
		return nil, typed("E1")
	}))
	attack := func(n int) {
		for i := range n {
			name := fmt.Sprintf("name-%d", i)
			for _, op := range []publish.Operation{publish.Publishing, publish.Refreshing, publish.Unpublishing} {
				m.Observe(t.Context(), publish.Outcome{Operation: op, Held: true, Volume: &publish.Volume{Provider: name + "\xff"}, Err: typed("Code-" + name)})
				m.Observe(t.Context(), publish.Outcome{Operation: op, Volume: &publish.Volume{Provider: name}, Err: typed("bad code\xff" + name)})
				m.Observe(t.Context(), publish.Outcome{Operation: op, Volume: &publish.Volume{Provider: name}, Result: publish.Result{Fetched: true}})
			}
			for _, from := range []string{name, name + "\xff"} {
				m.ObserveSecret(t.Context(), publish.SecretOutcome{Volume: &publish.Volume{ID: name, Provider: from}, Secret: name,
					Err: &provider.Error{Kind: provider.Kind(i), Message: name}})
			}
			failing.Fetch(t.Context(), &provider.Request{})
			m.Instrument(name, fetch(ok)).Fetch(t.Context(), &provider.Request{})
			m.Instrument(name+"\xff", fetch(ok)).Fetch(t.Context(), &provider.Request{})
			m.Call(name)(name)
			get(t, m, fmt.Sprintf("https://api/apis/%s/v1/namespaces/%s/%s/%s", name, name, name, name), 200, nil)
			get(t, m, fmt.Sprintf("https://api/%s", name), 100+i%900, nil)
		}
	}
	count := func() (n int, values map[string]bool) {
		values = map[string]bool{}
		for _, f := range scrape(t, m) {
			n += len(f.GetMetric())
			for _, s := range f.GetMetric() {
				for _, l := range s.GetLabel() {
					values[l.GetValue()] = true
				}
			}
		}
		return n, values
	}
	attack(900)
	attack(900) // what was found in the first round is a label in the second
	before, _ := count()
	attack(2000)
	after, values := count()
	if before != after || after > 3000 {
		t.Errorf("%d series became %d", before, after)
	}
	if !values["other"] || !values["unknown"] {
		t.Error("what is beyond the bounds is not seen")
	}
	// 32 codes, 64 providers, and what is fixed.
	if n := len(slices.Collect(maps.Keys(values))); n > 300 {
		t.Errorf("%d label values", n)
	}
}

type typed string

func (typed) Error() string       { return "failed" }
func (e typed) ErrorType() string { return string(e) }

// answer is a transport that gives one answer.
type answer struct {
	status int
	err    error
}

func (a answer) RoundTrip(req *http.Request) (*http.Response, error) {
	if a.err != nil {
		return nil, a.err
	}
	return &http.Response{StatusCode: a.status, Body: io.NopCloser(strings.NewReader("")), Request: req}, nil
}

func get(t testing.TB, m *metrics.Metrics, url string, status int, err error) {
	do(t, m, http.MethodGet, url, status, err)
}

func do(t testing.TB, m *metrics.Metrics, method, url string, status int, fail error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := m.APIRequests(answer{status, fail}).RoundTrip(req)
	if !errors.Is(err, fail) {
		t.Fatal(err)
	}
	if err == nil {
		resp.Body.Close()
	}
}
