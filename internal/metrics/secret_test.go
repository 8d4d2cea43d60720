package metrics_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"keymount/internal/metrics"
	"keymount/internal/provider"
	"keymount/internal/publish"
)

// A row is one try, and the series that it moves.
func TestSecretOutcomes(t *testing.T) {
	t.Attr("conformance", "12.6/metrics-are-recorded")
	denied := &provider.Error{Kind: provider.Denied, Message: "no"}
	for _, tc := range []struct {
		name                             string
		give                             publish.SecretOutcome
		result                           string // "" where the try does not count
		synced, timed, failed, outOfSync string
	}{
		{"created", publish.SecretOutcome{Asked: true, Action: publish.SecretCreated}, "created", "1", "1", "", "0"},
		{"updated", publish.SecretOutcome{Asked: true, Action: publish.SecretUpdated}, "updated", "1", "1", "", "0"},
		{"owned", publish.SecretOutcome{Asked: true, Action: publish.SecretOwned}, "owned", "1", "1", "", "0"},
		{"looked after", publish.SecretOutcome{Asked: true}, "unchanged", "1", "1", "", "0"},
		{"known to be right", publish.SecretOutcome{}, "", "", "", "", "0"},
		{"refused", publish.SecretOutcome{Asked: true, Err: denied}, "failed", "", "1", "denied", "1"},
		{"a class that cannot be", publish.SecretOutcome{Err: &provider.Error{Kind: provider.Invalid}}, "failed", "", "", "invalid", "1"},
		{"an odd kind", publish.SecretOutcome{Err: &provider.Error{Kind: 99}}, "failed", "", "", "internal", "1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := metrics.New(metrics.Config{})
			m.Instrument("aws", fetch(ok))
			tc.give.Volume, tc.give.Secret = &publish.Volume{ID: "v", Provider: "aws"}, "s"
			m.ObserveSecret(t.Context(), tc.give)
			families := scrape(t, m)
			for name, want := range map[string][2]string{
				"sync_k8s_secret_total":               {`{os_type="OS",provider="aws"} `, tc.synced},
				"k8s_secret_duration_sec":             {`{os_type="OS"} `, tc.timed},
				"keymount_secret_syncs_total":         {`{provider="aws",result="` + tc.result + `"} `, strings.Repeat("1", min(1, len(tc.result)))},
				"keymount_secret_sync_failures_total": {`{kind="` + tc.failed + `",provider="aws"} `, strings.Repeat("1", min(1, len(tc.failed)))},
				"keymount_secrets_out_of_sync":        {`{provider="aws"} `, tc.outOfSync},
			} {
				if want[1] == "" {
					wants(t, families, name)
				} else {
					wants(t, families, name, want[0]+want[1])
				}
			}
		})
	}
}

func TestSecretsOutOfSync(t *testing.T) {
	now := time.Unix(0, 0)
	m := metrics.New(metrics.Config{Now: func() time.Time { return now }})
	m.Instrument("aws", fetch(ok))
	m.Instrument("gcp", fetch(ok))
	fails := &provider.Error{Kind: provider.Denied}
	tell := func(id, from, secret string, err *provider.Error) {
		m.ObserveSecret(t.Context(), publish.SecretOutcome{Volume: &publish.Volume{ID: id, Provider: from}, Secret: secret, Err: err})
	}
	want := func(series ...string) {
		t.Helper()
		wants(t, scrape(t, m), "keymount_secrets_out_of_sync", series...)
	}
	unpublish := func(id string, err error) {
		m.Observe(t.Context(), publish.Outcome{Operation: publish.Unpublishing, Volume: &publish.Volume{ID: id}, Err: err})
	}
	want()
	tell("v", "aws", "a", fails)
	tell("v", "aws", "a", fails)
	tell("v", "aws", "b", fails)
	tell("w", "aws", "a", fails)
	tell("x", "gcp", "a", fails)
	tell("x", "gcp", "b", nil)
	tell("y", "nobody", "b", nil)
	want(`{provider="aws"} 3`, `{provider="gcp"} 1`, `{provider="unknown"} 0`)
	tell("v", "aws", "a", nil)
	tell("v", "aws", "a", nil)
	unpublish("x", fails)
	want(`{provider="aws"} 2`, `{provider="gcp"} 1`, `{provider="unknown"} 0`)
	unpublish("x", nil)
	unpublish("x", nil)
	want(`{provider="aws"} 2`, `{provider="gcp"} 0`, `{provider="unknown"} 0`)
	m.Observe(t.Context(), publish.Outcome{Volume: &publish.Volume{ID: "v"}, Held: true, Result: publish.Result{Fetched: true}}) // no news of Secrets
	want(`{provider="aws"} 2`, `{provider="gcp"} 0`, `{provider="unknown"} 0`)

	unpublish("v", nil)
	want(`{provider="aws"} 1`, `{provider="gcp"} 0`, `{provider="unknown"} 0`)
	now = now.Add(48 * time.Hour) // what fails is not always tried again
	want(`{provider="aws"} 1`, `{provider="gcp"} 0`, `{provider="unknown"} 0`)
}

// A try that was under way when its volume was unpublished would else count for ever. A volume that is mounted again is not taken for one.
func TestAFailureThatIsToldLate(t *testing.T) {
	now := time.Unix(0, 0)
	m := metrics.New(metrics.Config{Now: func() time.Time { return now }})
	tell := func(id string, took time.Duration) {
		m.ObserveSecret(t.Context(), publish.SecretOutcome{Volume: &publish.Volume{ID: id}, Secret: "a", Err: &provider.Error{}, Took: took})
	}
	unpublish := func(id string) {
		m.Observe(t.Context(), publish.Outcome{Operation: publish.Unpublishing, Volume: &publish.Volume{ID: id}})
	}
	want := func(series string) {
		t.Helper()
		wants(t, scrape(t, m), "keymount_secrets_out_of_sync", series)
	}
	unpublish("v")
	tell("v", time.Millisecond)
	tell("w", time.Millisecond)
	now = now.Add(4 * time.Second)
	tell("v", 5*time.Second)
	want(`{provider=""} 1`)
	tell("v", 2*time.Second)
	want(`{provider=""} 2`)

	unpublish("v")
	unpublish("w")
	for i := range 5000 { // a node that is drained, time and again, and what is remembered for it is not all that there ever was
		now = now.Add(time.Second)
		unpublish(fmt.Sprint(i))
	}
	unpublish("v")
	tell("v", time.Second)
	want(`{provider=""} 0`)
}

// However many Secrets fail, what is remembered of them is bounded, and those that end make room.
func TestFailingSecretsAreBounded(t *testing.T) {
	m := metrics.New(metrics.Config{})
	tell := func(i int, err *provider.Error) {
		m.ObserveSecret(t.Context(), publish.SecretOutcome{Volume: &publish.Volume{ID: fmt.Sprint(i / 200)}, Secret: fmt.Sprint(i), Err: err})
	}
	for i := range 12_000 {
		tell(i, &provider.Error{})
	}
	wants(t, scrape(t, m), "keymount_secrets_out_of_sync", `{provider=""} 10000`)
	for i := range 200 {
		tell(i, nil)
	}
	m.Observe(t.Context(), publish.Outcome{Operation: publish.Unpublishing, Volume: &publish.Volume{ID: "1"}})
	for i := range 1000 {
		tell(11_000+i, &provider.Error{})
	}
	wants(t, scrape(t, m), "keymount_secrets_out_of_sync", `{provider=""} 10000`)
	for i := range 12_000 {
		tell(i, nil)
	}
	wants(t, scrape(t, m), "keymount_secrets_out_of_sync", `{provider=""} 0`)
}
