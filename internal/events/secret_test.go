package events_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"keymount/internal/events"
	"keymount/internal/provider"
	"keymount/internal/publish"
)

// try is a try to sync a Secret that ended well, and changed nothing.
func (b *bench) try(change ...func(*publish.SecretOutcome)) {
	o := publish.SecretOutcome{Secret: "tls", Asked: true, Volume: &publish.Volume{ID: "csi-1", Class: publish.Class{Namespace: "shop", Name: "db"},
		Request: provider.Request{Pod: provider.Pod{Namespace: "shop", Name: "web", UID: "uid-web"}}}}
	for _, c := range change {
		c(&o)
	}
	b.ObserveSecret(b.t.Context(), o)
}

func refused(kind provider.Kind) func(*publish.SecretOutcome) {
	return func(o *publish.SecretOutcome) {
		o.Err = &provider.Error{Kind: kind, Object: "Secret " + o.Secret, Message: "syncing Secret shop/" + o.Secret + ": 100%d of it", Remedy: "grant it"}
	}
}

func of(secret string) func(*publish.SecretOutcome) {
	return func(o *publish.SecretOutcome) { o.Secret = secret }
}

func exists(o *publish.SecretOutcome) { o.Exists = true }

func did(action publish.SecretAction) func(*publish.SecretOutcome) {
	return func(o *publish.SecretOutcome) { o.Action = action }
}

func TestWhatIsToldOfSecrets(t *testing.T) {
	type does = []func(*publish.SecretOutcome)
	const message = "SecretProviderClass db: syncing Secret shop/tls: 100%d of it (grant it)"
	for _, tc := range []struct {
		name                  string
		outcome               does
		reason, kind, message string // none where there is no reason
	}{
		{"kept", nil, "", "", ""},
		{"created", does{did(publish.SecretCreated)}, "", "", ""},
		{"owned", does{did(publish.SecretOwned)}, "", "", ""},
		{"updated", does{did(publish.SecretUpdated)}, events.SecretRotationComplete, "Normal", "SecretProviderClass db: the Kubernetes Secret tls was updated"},
		{"could not be made", does{refused(provider.Denied)}, events.FailedToCreateSecret, "Warning", message},
		{"could not be changed", does{refused(provider.Invalid), exists}, events.SecretRotationFailed, "Warning", message},
		{"a failure of no kind", does{refused(provider.Internal)}, events.FailedToCreateSecret, "Warning", message},
		{"API server away", does{refused(provider.Unavailable)}, "", "", ""},
		{"API server away, and it is there", does{refused(provider.Unavailable), exists}, "", "", ""},
		{"too many requests", does{refused(provider.Throttled)}, "", "", ""},
		{"broken off", does{refused(provider.Internal), func(o *publish.SecretOutcome) { o.Err.Cause = fmt.Errorf("asking: %w", context.Canceled) }}, "", "", ""},
		{"no pod", does{refused(provider.Denied), func(o *publish.SecretOutcome) { o.Volume.Request.Pod = provider.Pod{} }}, "", "", ""},
		{"a name that leaves its place", does{refused(provider.Denied), func(o *publish.SecretOutcome) { o.Volume.Request.Pod.Namespace = "../x" }}, "", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, func(t *testing.T, b *bench) {
				b.try(tc.outcome...)
				if tc.reason == "" {
					b.wantAsked("")
					return
				}
				b.wantAsked("POST")
				e := b.last()
				if e.Reason != tc.reason || e.Type != tc.kind || e.Message != tc.message || e.InvolvedObject.Name != "web" || e.InvolvedObject.UID != "uid-web" {
					t.Errorf("Event %+v", e)
				}
			})
		})
	}
}

func TestASecretThatGoesOnFailingIsToldRarely(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		for i := range 31 { // the texts differ each time
			b.try(refused(provider.Denied), func(o *publish.SecretOutcome) { o.Err.Message += fmt.Sprint(" request ", i) })
			time.Sleep(time.Minute)
		}
		b.wantAsked("POST PATCH PATCH PATCH")
		if e := b.last(); e.Count != 4 || !strings.Contains(e.Message, "request 30") {
			t.Errorf("Event %+v", e)
		}
		b.try(refused(provider.Invalid)) // otherwise
		b.try(refused(provider.Denied), of("db"))
		b.try(refused(provider.Denied), exists)
		b.wantAsked("POST POST POST")
		b.try(refused(provider.Denied), of("db"))
		b.try(refused(provider.Unavailable)) // which does not say that it is over
		b.try(refused(provider.Denied))
		b.wantAsked("")

		time.Sleep(10 * time.Minute)
		b.asked()
		b.try(refused(provider.Denied))
		b.try(refused(provider.Denied), of("db"))
		b.asked()
		b.try() // it went well in between
		b.try(refused(provider.Denied), of("db"))
		b.wantAsked("")
		b.try(refused(provider.Denied))
		b.wantAsked("POST")
		b.try(did(publish.SecretUpdated))
		b.try(refused(provider.Denied))
		b.wantAsked("POST POST")

		b.tell(held, fetched) // the volume's own success says nothing of its Secrets
		b.try(refused(provider.Denied))
		b.wantAsked("")
		b.Observe(t.Context(), publish.Outcome{Operation: publish.Unpublishing, Volume: &publish.Volume{ID: "csi-1"}})
		b.try(refused(provider.Denied))
		b.wantAsked("POST")
	})
}

// An update is told each time, in one Event for each Secret.
func TestUpdatesOfSecrets(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		for range 3 {
			b.try(did(publish.SecretUpdated))
			b.try(did(publish.SecretUpdated), of("db"))
			time.Sleep(2 * time.Minute)
		}
		b.wantAsked("POST POST PATCH PATCH PATCH PATCH")
		if e := b.last(); e.Count != 3 || !strings.Contains(e.Message, "Secret db") {
			t.Errorf("Event %+v", e)
		}
	})
}

// A class with many Secrets, of hostile names, causes no more Events than a volume may, and they are within bounds.
func TestManySecretsOfOneVolume(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		for i := range 100 {
			b.try(of(fmt.Sprint("tls-", i)), refused(provider.Denied))
		}
		if n := len(strings.Fields(b.asked())); n != 10 {
			t.Errorf("%d Events at once", n)
		}
		for range 20 {
			time.Sleep(time.Minute)
			for i := range 100 {
				b.try(of(fmt.Sprint("tls-", i)), refused(provider.Denied))
			}
		}
		if n := len(strings.Fields(b.asked())); n < 10 || n > 20 {
			t.Errorf("%d Events in 20 minutes", n)
		}
		long := strings.Repeat("ü\n\xff", 1000)
		for _, outcome := range []func(*publish.SecretOutcome){refused(provider.Denied), did(publish.SecretUpdated)} {
			b.try(of(long), outcome, func(o *publish.SecretOutcome) { o.Volume.ID = "csi-2" })
			b.wantAsked("POST")
			if m := b.last().Message; len(m) > 1024 || !utf8.ValidString(m) || strings.Contains(m, "\n") {
				t.Errorf("%d bytes: %q", len(m), m)
			}
		}
	})
}

// What comes late of a volume that was unpublished is forgotten after a while; what is told all the time is not.
func TestSecretsOfAVolumeThatIsNotKnown(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.try(refused(provider.Denied))
		for range 3 {
			time.Sleep(50 * time.Minute)
			b.asked()
			b.try(refused(provider.Denied), func(o *publish.SecretOutcome) { o.Err.Message = "again" })
			b.wantAsked("PATCH")
		}
		time.Sleep(2 * time.Hour)
		b.try(refused(provider.Denied))
		b.wantAsked("POST")
	})
}

func TestSecretsOfManyVolumesAtOnce(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				id := func(o *publish.SecretOutcome) { o.Volume.ID = fmt.Sprint(i) }
				b.try(refused(provider.Denied), id)
				b.tell(fetched, func(o *publish.Outcome) { o.Volume.ID = fmt.Sprint(i) })
				b.try(did(publish.SecretUpdated), id)
			})
		}
		all.Wait()
		if n := len(strings.Fields(b.asked())); n != 100 || b.Lost() != 0 {
			t.Errorf("%d Events, lost %d", n, b.Lost())
		}
	})
}
