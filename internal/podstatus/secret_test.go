package podstatus_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

// synced is a try to sync a Secret of a volume that went well.
func (b *bench) synced(v *publish.Volume, secret string) { b.try(v, secret, nil) }

// notSynced is one that failed.
func (b *bench) notSynced(v *publish.Volume, secret string, kind provider.Kind) {
	b.try(v, secret, &provider.Error{Kind: kind, Message: "syncing Secret shop/" + secret + ": no", Remedy: "grant it"})
}

func (b *bench) try(v *publish.Volume, secret string, err *provider.Error) {
	b.t.Helper()
	began := time.Now()
	b.ObserveSecret(b.t.Context(), publish.SecretOutcome{Volume: v, Secret: secret, Err: err, Asked: true})
	if took := time.Since(began); took > 0 {
		b.t.Errorf("waited for %v", took)
	}
}

// asking returns the volume as of a class that asks for these Secrets.
func asking(v *publish.Volume, secrets ...string) *publish.Volume {
	out := *v
	out.Secrets = nil
	for _, name := range secrets {
		out.Secrets = append(out.Secrets, publish.SecretObject{Name: name})
	}
	return &out
}

// conditions are the object's, by type.
func (b *bench) conditions() map[string]string {
	b.t.Helper()
	var list []map[string]any
	if err := json.Unmarshal([]byte(b.object("web-shop-db", "status", "conditions")), &list); err != nil {
		b.t.Fatal(err)
	}
	out := map[string]string{}
	for _, c := range list {
		name, _ := c["type"].(string)
		out[name] = fmt.Sprintf("%v %v %v: %v", c["status"], c["reason"], c["lastTransitionTime"], c["message"])
	}
	return out
}

func (b *bench) wantCondition(name, want string) {
	b.t.Helper()
	equal(b.t, name, b.conditions()[name], want)
}

const upToDate = "True Refreshed 2000-01-01T00:00:00Z: the volume holds what the provider last gave"

func TestSecretsSynced(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		v := asking(volumeOf("web", "db", "v"), "a", "b", "c")
		b.record(v, first("x=1"))
		for _, name := range []string{"a", "b", "c"} {
			b.synced(v, name)
		}
		time.Sleep(time.Minute)
		b.wantAsked("POST web-shop-db") // a volume whose Secrets do not fail says nothing of them
		b.wantCondition("SecretsSynced", "")

		b.breaks(func(string, string) int { return -1 }) // nobody waits for the API server
		b.notSynced(v, "b", provider.Denied)
		b.notSynced(v, "a", provider.Denied)
		b.notSynced(v, "c", provider.Unavailable)
		b.breaks(nil)
		time.Sleep(10 * time.Second)
		b.wantAsked("PATCH web-shop-db") // one tells of all
		b.wantCondition("SecretsSynced", "False Denied 2000-01-01T00:01:01Z: syncing Secret shop/a: no (grant it); not synced either: b, c")
		b.wantCondition("UpToDate", upToDate)

		b.notSynced(v, "a", provider.Denied)
		b.synced(v, "a")
		b.synced(v, "c")
		b.record(v, holds("x=1"))
		time.Sleep(time.Minute)
		b.wantAsked() // another one still fails, for the same reason
		b.notSynced(v, "b", provider.Invalid)
		time.Sleep(time.Minute)
		b.wantAsked("PATCH web-shop-db") // another reason, no transition
		b.wantCondition("SecretsSynced", "False Invalid 2000-01-01T00:01:01Z: syncing Secret shop/b: no (grant it)")

		b.recordFailure(v, errors.New("x")) // of the volume
		b.wantAsked("PATCH web-shop-db")
		b.wantCondition("SecretsSynced", "False Invalid 2000-01-01T00:01:01Z: syncing Secret shop/b: no (grant it)")
		b.record(v, holds("x=2"))
		b.wantAsked("PATCH web-shop-db")

		b.synced(v, "b")
		time.Sleep(time.Minute)
		b.wantAsked("PATCH web-shop-db")
		b.wantCondition("SecretsSynced", "True Synced 2000-01-01T00:03:11Z: no Kubernetes Secret that the class asks for fails")
		b.synced(v, "b")
		time.Sleep(time.Hour)
		b.wantAsked()
	})
}

// What fails while the API server is away is no condition by the time that it is back, if it no longer fails then.
func TestAFailureThatEndsBeforeItIsWritten(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		v := asking(volumeOf("web", "db", "v"), "a")
		b.breaks(func(string, string) int { return 503 })
		if err := b.RecordStatus(t.Context(), v, first("x=1")); err == nil {
			t.Error("no error")
		}
		b.notSynced(v, "a", provider.Unavailable)
		time.Sleep(time.Minute)
		b.breaks(nil)
		b.synced(v, "a")
		time.Sleep(3 * time.Minute)
		b.wantCondition("SecretsSynced", "")
	})
}

func TestAnOutcomeThatComesWhileAnOlderOneIsWritten(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		v := asking(volumeOf("web", "db", "v"), "a")
		b.record(v, first("x=1"))
		b.asked()
		b.breaks(func(string, string) int { time.Sleep(3 * time.Second); return 0 })
		b.notSynced(v, "a", provider.Denied)
		time.Sleep(2 * time.Second)
		b.synced(v, "a")
		time.Sleep(time.Hour)
		b.wantAsked("PATCH web-shop-db", "PATCH web-shop-db")
		b.wantCondition("SecretsSynced", "True Synced 2000-01-01T00:00:04Z: no Kubernetes Secret that the class asks for fails")
	})
}

// An object that could not be made at first is made with all that is known by then.
func TestAnObjectIsMadeWithBothConditions(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		v := asking(volumeOf("web", "db", "v"), "a")
		b.breaks(func(string, string) int { return 403 })
		if err := b.RecordStatus(t.Context(), v, first("x=1")); err == nil {
			t.Error("no error")
		}
		b.notSynced(v, "a", provider.Denied)
		b.breaks(nil)
		b.asked()
		time.Sleep(3 * time.Minute)
		b.wantAsked("POST web-shop-db")
		if got := b.conditions(); len(got) != 2 || !strings.HasPrefix(got["SecretsSynced"], "False Denied") || !strings.HasPrefix(got["UpToDate"], "True") {
			t.Errorf("conditions %v", got)
		}
	})
}

// A driver that was started anew hears of Secrets before it refreshes the volumes that it found.
func TestSecretsOfAVolumeThatIsFound(t *testing.T) {
	const failing = `,{"type":"SecretsSynced","status":"False","reason":"Denied","message":"before","lastTransitionTime":"1999-12-31T00:00:00Z"}`
	for _, tc := range []struct {
		name, more string
		kind       provider.Kind
		fails      bool
		asked      []string
		want       string
	}{
		{"all is well, as before", "", 0, false, []string{"GET"}, ""},
		{"well again", failing, 0, false, []string{"GET", "PATCH"}, "True Synced 2000-01-01T00:01:01Z: no Kubernetes Secret that the class asks for fails"},
		{"fails", "", provider.Denied, true, []string{"GET", "PATCH"}, "False Denied 2000-01-01T00:01:01Z: syncing Secret shop/a: no (grant it)"},
		{"fails as before", failing, provider.Denied, true, []string{"GET"}, "False Denied 1999-12-31T00:00:00Z: before"},
		{"fails otherwise", failing, provider.Invalid, true, []string{"GET", "PATCH"}, "False Invalid 1999-12-31T00:00:00Z: syncing Secret shop/a: no (grant it)"},
		{"a condition of odd fields", `,{"type":"SecretsSynced","status":7,"reason":[]}`, provider.Denied, true, []string{"GET", "PATCH"},
			"False Denied 2000-01-01T00:01:01Z: syncing Secret shop/a: no (grant it)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, func(t *testing.T, b *bench) {
				v := asking(volumeOf("web", "db", "v"), "a")
				v.Request.Pod.ServiceAccount = "reader"
				b.record(v, first("x=1"))
				b.put("web-shop-db", strings.Replace(b.object("web-shop-db"), `"type":"UpToDate"}`, `"type":"UpToDate"}`+tc.more+`,{"type":"Theirs"}`, 1))
				b.asked()
				b.restart()
				b.run()
				time.Sleep(time.Minute)
				found := *v
				found.Request.Pod.ServiceAccount, found.Provider = "", "" // what records of before do not have
				if tc.fails {
					b.notSynced(&found, "a", tc.kind)
				} else {
					b.synced(&found, "a")
				}
				time.Sleep(time.Minute)
				var asked []string
				for _, method := range tc.asked {
					asked = append(asked, method+" web-shop-db")
				}
				b.wantAsked(asked...)
				b.wantCondition("SecretsSynced", tc.want)
				b.wantCondition("UpToDate", upToDate)
				if _, ok := b.conditions()["Theirs"]; !ok {
					t.Error("a condition of others is lost")
				}
				equal(t, "objects", b.object("web-shop-db", "status", "objects"), `[{"id":"x","version":"1"}]`)

				b.record(v, holds("x=1")) // it is the same volume
				time.Sleep(2 * time.Hour) // and is remembered
				b.record(v, holds("x=1"))
				b.wantAsked()
			})
		})
	}
}

// A class that asks for no Secrets any more has none that fail; whether the driver has heard of them or not.
func TestAClassThatAsksForNoSecretsAnyMore(t *testing.T) {
	for name, restart := range map[string]bool{"known": false, "found": true} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, b *bench) {
				b.run()
				v := asking(volumeOf("web", "db", "v"), "a", "b")
				b.record(v, first("x=1"))
				b.notSynced(v, "a", provider.Denied)
				time.Sleep(time.Minute)
				b.record(v, holds("x=1"))
				b.wantAsked("POST web-shop-db", "PATCH web-shop-db")
				want := []string{"PATCH web-shop-db"}
				if restart {
					b.restart()
					b.run()
					want = []string{"GET web-shop-db", "PATCH web-shop-db"}
				}
				b.record(asking(v), holds("x=1"))
				b.wantAsked(want...)
				b.wantCondition("SecretsSynced", "True Synced 2000-01-01T00:01:00Z: no Kubernetes Secret that the class asks for fails")
				b.notSynced(v, "b", provider.Denied) // it is remembered anew
				time.Sleep(time.Minute)
				b.wantCondition("SecretsSynced", "False Denied 2000-01-01T00:01:01Z: syncing Secret shop/b: no (grant it)")
			})
		})
	}
}
