package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"keymount/internal/metrics"
	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/volume"
)

// A row is one call, and the series that it moves, among upstream's and ours.
func TestOutcomes(t *testing.T) {
	t.Attr("conformance", "12.6/metrics-are-recorded")
	changed := volume.Change{Updated: []string{"f"}}
	denied := &provider.Error{Kind: provider.Denied, Message: "no"}
	for _, tc := range []struct {
		name string
		give publish.Outcome
		want map[string]string // series by name; absent families are not checked
		none []string
	}{
		{"first mount", publish.Outcome{Result: publish.Result{Fetched: true, First: true, Change: changed}}, map[string]string{
			"node_publish_total":               `{os_type="OS",provider="aws"} 1`,
			"keymount_volume_operations_total": `{operation="publish",provider="aws",result="mounted"} 1`,
		}, []string{"rotation_reconcile_total", "rotation_reconcile_duration_sec", "node_publish_error_total"}},
		{"nothing due", publish.Outcome{Held: true}, map[string]string{
			"node_publish_total":               `{os_type="OS",provider="aws"} 1`,
			"keymount_volume_operations_total": `{operation="publish",provider="aws",result="not_due"} 1`,
		}, []string{"rotation_reconcile_total", "rotation_reconcile_duration_sec", "keymount_provider_last_success_timestamp_seconds"}},
		{"busy", publish.Outcome{Held: true, Result: publish.Result{Busy: true}}, map[string]string{
			"node_publish_total":               `{os_type="OS",provider="aws"} 1`,
			"keymount_volume_operations_total": `{operation="publish",provider="aws",result="busy"} 1`,
		}, []string{"rotation_reconcile_total"}},
		{"refreshed, nothing new", publish.Outcome{Held: true, Result: publish.Result{Fetched: true}}, map[string]string{
			"node_publish_total":                               `{os_type="OS",provider="aws"} 1`,
			"rotation_reconcile_total":                         `{os_type="OS",provider="aws",rotated="false"} 1`,
			"rotation_reconcile_duration_sec":                  `{os_type="OS"} 1`,
			"keymount_volume_operations_total":                 `{operation="publish",provider="aws",result="unchanged"} 1`,
			"keymount_provider_last_success_timestamp_seconds": `{provider="aws"} 5`,
		}, nil},
		{"refreshed by the daemon's loop", publish.Outcome{Operation: publish.Refreshing, Held: true,
			Result: publish.Result{Fetched: true, Change: changed}}, map[string]string{
			"rotation_reconcile_total":                   `{os_type="OS",provider="aws",rotated="true"} 1`,
			"keymount_volume_operations_total":           `{operation="refresh",provider="aws",result="changed"} 1`,
			"keymount_volume_operation_duration_seconds": `{operation="refresh",result="changed"} 1`,
		}, []string{"node_publish_total"}},
		{"first mount failed", publish.Outcome{Err: denied}, map[string]string{
			"node_publish_error_total":         `{error_type="FailedToMount",os_type="OS",provider="aws"} 1`,
			"keymount_volume_operations_total": `{operation="publish",provider="aws",result="failed"} 1`,
			"keymount_volume_failures_total":   `{kind="denied",operation="publish",provider="aws",state="left"} 1`,
		}, []string{"node_publish_total", "rotation_reconcile_error_total"}},
		{"refresh failed", publish.Outcome{Held: true, Err: fmt.Errorf("wrapped: %w", typed("GRPCProviderError"))}, map[string]string{
			"node_publish_error_total":        `{error_type="GRPCProviderError",os_type="OS",provider="aws"} 1`,
			"rotation_reconcile_error_total":  `{error_type="GRPCProviderError",os_type="OS",provider="aws",rotated="false"} 1`,
			"rotation_reconcile_duration_sec": `{os_type="OS"} 1`,
		}, []string{"rotation_reconcile_total"}},
		{"unpublished", publish.Outcome{Operation: publish.Unpublishing, Held: true}, map[string]string{
			"node_unpublish_total":             `{os_type="OS"} 1`,
			"keymount_volume_operations_total": `{operation="unpublish",provider="aws",result="removed"} 1`,
		}, []string{"node_publish_total", "rotation_reconcile_total", "node_unpublish_error_total"}},
		{"unpublish failed", publish.Outcome{Operation: publish.Unpublishing, Held: true, Err: denied}, map[string]string{
			"node_unpublish_error_total": `{os_type="OS"} 1`,
		}, []string{"node_unpublish_total", "rotation_reconcile_error_total", "node_publish_error_total"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := metrics.New(metrics.Config{Now: func() time.Time { return time.Unix(5, 0) }})
			m.Instrument("aws", fetch(ok))
			tc.give.Volume = &publish.Volume{Provider: "aws"}
			m.Observe(t.Context(), tc.give)
			families := scrape(t, m)
			for name, want := range tc.want {
				wants(t, families, name, want)
			}
			for _, name := range tc.none {
				if f := families[name]; f != nil {
					t.Errorf("%s moved: %v", name, series(f))
				}
			}
		})
	}
}

// lostStore has no volumes and cannot make any.
type lostStore struct{}

func (lostStore) Mount(string) error                    { return errors.New("no tmpfs") }
func (lostStore) Unmount(string) error                  { return nil }
func (lostStore) Inspect(string) (volume.Status, error) { return volume.Status{}, nil }

// The error that publish really makes, of a provider's failure and of what it left.
func TestErrorsOfPublish(t *testing.T) {
	t.Attr("conformance", "12.6/error-types")
	m := metrics.New(metrics.Config{})
	failing := m.Instrument("p", fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) {
		return nil, provider.Errors{{Kind: provider.NotFound, Message: "secret x"}, {Kind: provider.Throttled, Message: "y"}}
	}))
	p := publish.New(publish.Config{Store: lostStore{}, Observer: m, Provider: func(name string) (provider.Provider, error) {
		if name == "p" {
			return failing, nil
		}
		return nil, typed("FailedToLookupProviderGRPCClient")
	}})
	for _, name := range []string{"p", "nobody"} {
		_, err := p.Publish(t.Context(), publish.Volume{ID: "v", Target: "/nowhere", Provider: name,
			Request: provider.Request{Parameters: map[string]string{"a": "b"}}})
		if name == "p" && len(provider.ErrorsOf(err)) != 2 {
			t.Errorf("the provider's failures became %v", err)
		}
	}
	families := scrape(t, m)
	wants(t, families, "node_publish_error_total", `{error_type="GRPCProviderError",os_type="OS",provider="p"} 1`,
		`{error_type="FailedToLookupProviderGRPCClient",os_type="OS",provider="unknown"} 1`)
	wants(t, families, "keymount_volume_failures_total", `{kind="not_found",operation="publish",provider="p",state="undone"} 1`,
		`{kind="internal",operation="publish",provider="unknown",state="undone"} 1`)
	wants(t, families, "keymount_provider_fetch_duration_seconds", `{provider="p",result="not_found"} 1`)
}

type writer struct {
	fetch
	may bool
}

func (w writer) MayWriteTarget() bool { return w.may }

// An instrumented provider is what it was: its answers, its errors and whether it writes files itself.
func TestInstrumentChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := metrics.New(metrics.Config{})
		cause := &provider.Error{Kind: provider.Throttled, Message: "slow down", RetryAfter: time.Second}
		bundle := &provider.Bundle{SelfWritten: true}
		var give error
		p := m.Instrument("p", fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) {
			time.Sleep(time.Second)
			if give != nil {
				return nil, give
			}
			return bundle, nil
		}))
		done := make(chan struct{})
		go func() {
			defer close(done)
			if b, err := p.Fetch(t.Context(), &provider.Request{}); b != bundle || err != nil {
				t.Errorf("got %v, %v", b, err)
			}
			give = cause
			b, err := p.Fetch(t.Context(), &provider.Request{})
			if b != nil || !errors.Is(err, cause) || err.Error() != cause.Error() || provider.ErrorsOf(err)[0] != cause {
				t.Errorf("got %v, %v", b, err)
			}
			give = typed("E42")
			if _, err := p.Fetch(t.Context(), &provider.Request{}); err != give {
				t.Errorf("got %v", err)
			}
		}()
		<-done
		for _, may := range []bool{true, false} {
			w, ok := m.Instrument("w", writer{fetch(ok), may}).(provider.TargetWriter)
			if !ok || w.MayWriteTarget() != may {
				t.Errorf("may write: %v, want %v", !may, may)
			}
		}
		if w, ok := p.(provider.TargetWriter); ok && w.MayWriteTarget() {
			t.Error("a provider that writes no files may")
		}
	})
}

func TestInFlight(t *testing.T) {
	m := metrics.New(metrics.Config{})
	asked, release := make(chan struct{}), make(chan struct{})
	p := m.Instrument("p", fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) {
		close(asked)
		<-release
		panic("x")
	}))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() { recover() }()
		p.Fetch(t.Context(), &provider.Request{})
	}()
	<-asked
	wants(t, scrape(t, m), "keymount_provider_fetches_in_flight", `{provider="p"} 1`)
	close(release)
	<-ended
	families := scrape(t, m)
	wants(t, families, "keymount_provider_fetches_in_flight", `{provider="p"} 0`)
	wants(t, families, "keymount_provider_fetch_duration_seconds", `{provider="p",result="internal"} 1`)
}

func TestAPIRequests(t *testing.T) {
	m := metrics.New(metrics.Config{})
	down := errors.New("down")
	const group = "/apis/secrets-store.csi.x-k8s.io/v1"
	for _, r := range []struct {
		method, path string
		status       int
		err          error
		want         string
	}{
		{"GET", "/api/v1/namespaces/ns/pods/p", 200, nil, `{code="200",resource="pods",verb="get"} 1`},
		{"GET", "/api/v1/pods?fieldSelector=x", 200, nil, `{code="200",resource="pods",verb="list"} 1`},
		{"GET", group + "/namespaces/ns/secretproviderclasses?watch=1", 200, nil, `{code="200",resource="secretproviderclasses",verb="watch"} 1`},
		{"GET", group + "/namespaces/ns/secretproviderclasses/c", 404, nil, `{code="404",resource="secretproviderclasses",verb="get"} 1`},
		{"POST", group + "/namespaces/ns/secretproviderclasspodstatuses", 409, nil, `{code="409",resource="secretproviderclasspodstatuses",verb="create"} 1`},
		{"PUT", group + "/namespaces/ns/secretproviderclasspodstatuses/s", 200, nil, `{code="200",resource="secretproviderclasspodstatuses",verb="update"} 1`},
		{"PATCH", "/apis/events.k8s.io/v1/namespaces/ns/events/e", 0, down, `{code="error",resource="events",verb="patch"} 1`},
		{"DELETE", "/api/v1/namespaces/ns/configmaps/c", 299, nil, `{code="2xx",resource="other",verb="delete"} 1`},
		{"GET", "/apis/storage.k8s.io/v1/csidrivers/d", 200, nil, `{code="200",resource="csidrivers",verb="get"} 1`},
		{"GET", "/openid/v1/jwks", 200, nil, `{code="200",resource="openid",verb="get"} 1`},
		{"GET", "/", 403, nil, `{code="403",resource="other",verb="get"} 1`},
		{"BREW", "/api/v1", 999, nil, `{code="other",resource="other",verb="other"} 1`},
	} {
		m = metrics.New(metrics.Config{})
		do(t, m, r.method, "https://api"+r.path, r.status, r.err)
		wants(t, scrape(t, m), "keymount_api_requests_total", r.want)
	}
	below := answer{status: 200}
	wrapped, ok := m.APIRequests(below).(interface{ WrappedRoundTripper() http.RoundTripper })
	if !ok || wrapped.WrappedRoundTripper() != http.RoundTripper(below) {
		t.Error("client-go does not find the transport below")
	}
}
