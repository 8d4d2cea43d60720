package vault_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keymount/internal/azure/identity"
	"keymount/internal/azure/vault"
	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
)

type result struct {
	value string
	err   error
}

// get reads a secret in a goroutine.
func get(ctx context.Context, c *vault.Client, who *identity.Credential, name string) chan result {
	done := make(chan result, 1)
	go func() {
		s, err := c.Secret(ctx, who, vaultURL, name, "")
		if err != nil {
			done <- result{err: err}
			return
		}
		done <- result{value: string(s.Value)}
	}()
	return done
}

// A hundred pods of one service account, each with a token of its own, cost one token and one read.
func TestOneIdentityPaysOnce(t *testing.T) {
	w := newWorld(t)
	w.PutSecret("alpha", "one", "value")
	release := w.SetFault(emulator.Fault{Do: emulator.ActHang, Kind: emulator.KindSecretGet})
	var creds []*identity.Credential
	for i := range 100 {
		proof := []provider.Proof{provider.ProvenByRequest, provider.ProvenByCSIDriver, provider.ProvenBySignature}[i%3]
		creds = append(creds, w.pod(fmt.Sprint("uid-", i), proof))
	}
	var reads []chan result
	for _, who := range creds {
		reads = append(reads, get(t.Context(), w.client, who, "one"))
	}
	w.Await(emulator.KindSecretGet, 1)
	release()
	for _, r := range reads {
		if got := <-r; got.err != nil || got.value != "value" {
			t.Fatalf("%q, %v", got.value, got.err)
		}
	}
	if n := w.Requests(); n[emulator.KindToken] != 1 || n[emulator.KindSecretGet] != 1 || n[emulator.KindOpenID] != 1 || n.Total() != 3 {
		t.Errorf("requests are %v, want a discovery document, a token and a read", n)
	}
}

// Tokens of unknown origin are shown to Entra ID once each; after that they are as good as any.
func TestUnprovenTokensShareAfterOneExchange(t *testing.T) {
	w := newWorld(t)
	w.PutSecret("alpha", "one", "value")
	w.PutSecret("alpha", "two", "value")
	for range 2 {
		for i := range 5 {
			for _, name := range []string{"one", "two"} {
				if got := <-get(t.Context(), w.client, w.podOnce(fmt.Sprint("uid-", i)), name); got.err != nil {
					t.Fatal(got.err)
				}
			}
		}
	}
	if n := w.Requests(); n[emulator.KindToken] != 5 || n[emulator.KindSecretGet] != 2 {
		t.Errorf("requests are %v, want five exchanges and two reads", n)
	}
}

// podOnce is pod with the same token each time.
func (w *world) podOnce(uid string) *identity.Credential {
	w.t.Helper()
	if w.tokens == nil {
		w.tokens = map[string]string{}
	}
	if w.tokens[uid] == "" {
		w.tokens[uid] = w.ServiceAccountToken("app", "reader", "reader-"+uid, uid, emulatortest.Audience, time.Hour)
	}
	return podCredential(w.t, w.source, uid, w.tokens[uid], provider.Unproven)
}

// Two identities that read the same object of the same vault at the same moment are two reads with two answers.
func TestTwoIdentitiesNeverShare(t *testing.T) {
	w := newWorld(t, func(s *emulator.Seed) {
		s.Vaults[0].Access = []emulator.Access{{App: emulatortest.ClientID, Allow: []string{"*"}}}
	})
	w.PutSecret("alpha", "one", "value")
	release := w.SetFault(emulator.Fault{Do: emulator.ActHang, Kind: emulator.KindSecretGet})
	identities := map[string]*identity.Credential{
		"service principal": w.principal(), "workload": w.pod("uid-1", provider.ProvenByRequest),
		"other": principal(t, w.source, otherClient, "other-secret"),
	}
	reads := map[string][]chan result{}
	for range 20 {
		for name, who := range identities {
			reads[name] = append(reads[name], get(t.Context(), w.client, who, "one"))
		}
	}
	w.Await(emulator.KindSecretGet, 3)
	release()
	for name, all := range reads {
		for _, r := range all {
			got := <-r
			if name == "other" && (got.value != "" || provider.KindOf(got.err) != provider.Denied || got.err == nil) {
				t.Fatalf("the identity without rights gets %q, %v", got.value, got.err)
			}
			if name != "other" && (got.err != nil || got.value != "value") {
				t.Fatalf("%s gets %q, %v", name, got.value, got.err)
			}
		}
	}
	if n := w.Requests()[emulator.KindSecretGet]; n < 3 {
		t.Errorf("%d reads for three identities", n)
	}
}

// How old a read may be counts from when it left, not from when its answer came.
func TestShareFor(t *testing.T) {
	for _, tc := range []struct {
		name     string
		shareFor time.Duration
		asks     []time.Duration // when, from the start
		want     int             // requests
	}{
		{"within", 5 * time.Second, []time.Duration{0, 2 * time.Second, 5 * time.Second}, 1},
		{"beyond", 5 * time.Second, []time.Duration{0, 5*time.Second + 1}, 2},
		{"in flight only", 0, []time.Duration{0, time.Second, 2*time.Second + 1}, 2},
		{"in flight, but too old", time.Second, []time.Duration{0, time.Second, time.Second + 1, 2*time.Second + 2}, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(func(req *http.Request, n int) (*http.Response, error) {
					time.Sleep(2 * time.Second)
					return secret(req, "value"), nil
				})
				source, client := f.client(func(c *vault.Config) { c.ShareFor = tc.shareFor })
				who := principal(t, source, "c", "s")
				start := time.Now()
				var reads []chan result
				for _, at := range tc.asks {
					time.Sleep(time.Until(start.Add(at)))
					reads = append(reads, get(t.Context(), client, who, "one"))
					synctest.Wait()
				}
				for _, r := range reads {
					if got := <-r; got.err != nil || got.value != "value" {
						t.Fatalf("%q, %v", got.value, got.err)
					}
				}
				if n := len(f.requests("")); n != tc.want {
					t.Errorf("%d requests, want %d", n, tc.want)
				}
				time.Sleep(tc.shareFor + 10*time.Millisecond)
				synctest.Wait()
				if finished, bytes, all := client.Kept(); finished != 0 || bytes != 0 || all != 0 {
					t.Errorf("%d reads of %d bytes linger, %d in all", finished, bytes, all)
				}
			})
		})
	}
}

// Who wants nothing that was read before a moment is served by reads that began since, in flight or finished, and by no other.
func TestNotBefore(t *testing.T) {
	for _, shareFor := range []time.Duration{0, 5 * time.Second} {
		t.Run(fmt.Sprint("share for ", shareFor), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(func(req *http.Request, n int) (*http.Response, error) {
					time.Sleep(time.Second)
					return secret(req, fmt.Sprint(n)), nil
				})
				source, client := f.client(func(c *vault.Config) { c.ShareFor = shareFor })
				who := principal(t, source, "c", "s")
				old := get(t.Context(), client, who, "one")
				time.Sleep(500 * time.Millisecond)
				wanting := vault.Within(t.Context(), &vault.Window{NotBefore: time.Now()})
				first, second := get(wanting, client, who, "one"), get(wanting, client, who, "one")
				other := get(t.Context(), client, who, "one")
				for name, r := range map[string]chan result{"1": old, "2": first} {
					if got := <-r; got.err != nil || got.value != name {
						t.Errorf("%q, %v, want %s", got.value, got.err, name)
					}
				}
				if got := <-second; got.value != "2" {
					t.Errorf("the second has %q: it shares with the first", got.value)
				}
				<-other
				if n := len(f.requests("")); n != 2 {
					t.Errorf("%d requests, want 2", n)
				}
				time.Sleep(6 * time.Second)
			})
		})
	}
}

// Whoever is served is told when the oldest read began that served him: his own, one that he joined, or one that was over.
func TestOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(req *http.Request, n int) (*http.Response, error) {
			time.Sleep(time.Second)
			return secret(req, fmt.Sprint(n)), nil
		})
		source, client := f.client(func(c *vault.Config) { c.ShareFor = 5 * time.Second })
		who := principal(t, source, "c", "s")
		<-get(t.Context(), client, who, "warm") // the token is there
		start := time.Now()
		read := func(w *vault.Window, name string) chan result {
			return get(vault.Within(t.Context(), w), client, who, name)
		}
		var own, joined, over, both, wanting vault.Window
		first := read(&own, "one")
		time.Sleep(500 * time.Millisecond)
		second := read(&joined, "one")
		<-first
		<-second
		time.Sleep(3 * time.Second) // 4 s after the start
		<-read(&over, "one")
		<-read(&both, "two")
		<-read(&both, "one") // at 5 s
		wanting.NotBefore = time.Now()
		<-read(&wanting, "one")
		for name, tc := range map[string]struct {
			window *vault.Window
			want   time.Duration
		}{"own": {&own, 0}, "joined": {&joined, 0}, "over": {&over, 0}, "an older and a newer one": {&both, 0}, "none before": {&wanting, 5 * time.Second}} {
			if got := tc.window.Oldest().Sub(start); got != tc.want {
				t.Errorf("%s: the oldest read began at %v, want %v", name, got, tc.want)
			}
		}
		if w := (&vault.Window{}); !w.Oldest().IsZero() {
			t.Error("nothing was read")
		}
		time.Sleep(10 * time.Second)
	})
}

// A list is as old as the last try of its first page, whatever the later ones take.
func TestOldestOfList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const next = `{"value":[],"nextLink":"` + vaultURL + `/secrets/one/versions?api-version=7.4&$skiptoken=x"}`
		f := newFake(func(req *http.Request, n int) (*http.Response, error) {
			time.Sleep(time.Second)
			switch n {
			case 1, 3: // the first try of each page
				return respond(req, 503, "", "Retry-After: 1"), nil
			case 2:
				return respond(req, 200, next), nil
			}
			return respond(req, 200, `{"value":[]}`), nil
		})
		source, client := f.client(func(c *vault.Config) { c.ShareFor = 0 })
		var window vault.Window
		if _, err := client.Versions(vault.Within(t.Context(), &window), principal(t, source, "c", "s"), vaultURL, vault.KindSecret, "one"); err != nil {
			t.Fatal(err)
		}
		times := f.requests("")
		if len(times) != 4 || !window.Oldest().Equal(times[1]) {
			t.Errorf("%d requests, and the list is as of %v, want the second of %v", len(times), window.Oldest(), times)
		}
	})
}

// A retried read is as old as its last try.
func TestRetriedReadIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(req *http.Request, n int) (*http.Response, error) {
			if n == 1 {
				return respond(req, 503, "", "Retry-After: 20"), nil
			}
			time.Sleep(time.Second)
			return secret(req, "value"), nil
		})
		source, client := f.client()
		who := principal(t, source, "c", "s")
		first := get(t.Context(), client, who, "one")
		time.Sleep(10 * time.Second)
		second := get(t.Context(), client, who, "one") // the first waits for its second try
		<-first
		<-second
		time.Sleep(4 * time.Second)
		<-get(t.Context(), client, who, "one")
		if n := len(f.requests("")); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}

func TestStarterGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(req *http.Request, n int) (*http.Response, error) {
			select {
			case <-time.After(5 * time.Second):
				return secret(req, "value"), nil
			case <-req.Context().Done():
				return nil, req.Context().Err()
			}
		})
		source, client := f.client()
		who := principal(t, source, "c", "s")
		starter, cancel := context.WithCancel(t.Context())
		first := get(starter, client, who, "one")
		synctest.Wait()
		second := get(t.Context(), client, who, "one")
		synctest.Wait()
		cancel()
		if got := <-first; !errors.Is(got.err, context.Canceled) || !strings.Contains(got.err.Error(), `reading secret "one" from vault alpha`) {
			t.Errorf("the starter gets %v", got.err)
		}
		if got := <-second; got.err != nil || got.value != "value" {
			t.Errorf("the waiter gets %q, %v", got.value, got.err)
		}

		// When the last one leaves the request ends, and whoever comes then starts anew.
		start := time.Now()
		alone, leave := context.WithCancel(t.Context())
		third := get(alone, client, who, "two")
		synctest.Wait()
		leave()
		<-third
		synctest.Wait()
		if f.inFlight != 0 || time.Since(start) != 0 {
			t.Errorf("%d requests that nobody waits for go on", f.inFlight)
		}
		if got := <-get(t.Context(), client, who, "two"); got.err != nil {
			t.Errorf("after an abandoned read: %v", got.err)
		}
	})
}

// Failures serve those who wait, and nobody after them.
func TestFailuresAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(req *http.Request, n int) (*http.Response, error) {
			time.Sleep(time.Second)
			if n == 1 {
				return respond(req, 404, `{"error":{"code":"SecretNotFound","message":"no"}}`), nil
			}
			return secret(req, "value"), nil
		})
		source, client := f.client()
		who := principal(t, source, "c", "s")
		a, b := get(t.Context(), client, who, "one"), get(t.Context(), client, who, "one")
		for _, r := range []chan result{a, b} {
			if got := <-r; provider.KindOf(got.err) != provider.NotFound {
				t.Errorf("%v", got.err)
			}
		}
		if got := <-get(t.Context(), client, who, "one"); got.err != nil || got.value != "value" {
			t.Errorf("%q, %v", got.value, got.err)
		}
		if n := len(f.requests("")); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}

// If the credential of the one who pays for a read turns bad, it fails alone and the others pay with theirs.
func TestCredentialFailureIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jwt := func(uid string) string {
			payload := fmt.Sprintf(`{"iss":"https://i","sub":"system:serviceaccount:app:reader","aud":[%q],"exp":%d,"kubernetes.io":{"pod":{"uid":%q}}}`,
				emulatortest.Audience, time.Now().Add(time.Hour).Unix(), uid)
			return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
		}
		badToken := jwt("bad")
		var mu sync.Mutex
		revoked := false
		f := newFake(func(req *http.Request, n int) (*http.Response, error) {
			time.Sleep(time.Second)
			if req.Header.Get("Authorization") == "Bearer token-1" {
				return respond(req, 401, ""), nil // which makes the payer ask for another token
			}
			return secret(req, "value"), nil
		})
		f.grant = func(form url.Values) *http.Response {
			mu.Lock()
			defer mu.Unlock()
			if revoked && form.Get("client_assertion") == badToken {
				return respond(nil, 401, `{"error":"invalid_client","error_description":"AADSTS700024: too late","error_codes":[700024]}`)
			}
			revoked = true
			return nil
		}
		source, client := f.client()
		bad := get(t.Context(), client, podCredential(t, source, "bad", badToken, provider.ProvenByRequest), "one")
		synctest.Wait()
		var good []chan result
		for i := range 5 {
			uid := fmt.Sprint("good-", i)
			good = append(good, get(t.Context(), client, podCredential(t, source, uid, jwt(uid), provider.ProvenByRequest), "one"))
		}
		if got := <-bad; provider.KindOf(got.err) != provider.Denied || got.err == nil || !strings.Contains(got.err.Error(), "AADSTS700024") {
			t.Errorf("the bad credential gets %q, %v", got.value, got.err)
		}
		for _, r := range good {
			if got := <-r; got.err != nil || got.value != "value" {
				t.Errorf("a good credential gets %q, %v", got.value, got.err)
			}
		}
		if n := len(f.requests("")); n != 2 || f.tokens != 3 {
			t.Errorf("%d reads and %d tokens, want 2 and 3", n, f.tokens)
		}
	})
}

// An identity whose access token has ended shares nothing until it is renewed, not even with itself.
func TestEndedIdentitySharesNothing(t *testing.T) {
	f := newFake(func(req *http.Request, n int) (*http.Response, error) { return secret(req, "value"), nil })
	now := time.Now()
	source := identity.NewFromRequest(identity.Config{Transport: f, Now: func() time.Time { return now }})
	_, client := f.client(func(c *vault.Config) { c.ShareFor = time.Hour })
	for range 2 {
		if got := <-get(t.Context(), client, principal(t, source, "c", "s"), "one"); got.err != nil {
			t.Fatal(got.err)
		}
	}
	now = now.Add(time.Hour)
	f.grant = func(url.Values) *http.Response {
		return respond(nil, 401, `{"error":"invalid_client","error_description":"AADSTS7000222: expired","error_codes":[7000222]}`)
	}
	if got := <-get(t.Context(), client, principal(t, source, "c", "s"), "one"); provider.KindOf(got.err) != provider.Denied || got.err == nil {
		t.Errorf("it is served %q, %v", got.value, got.err)
	}
	if n := len(f.requests("")); n != 1 {
		t.Errorf("%d reads, want 1", n)
	}
}

// What a list and an object, kinds, versions, vaults and spellings have in common must not make them one read.
func TestWhatIsSharedIsTheSame(t *testing.T) {
	f := newFake(func(req *http.Request, n int) (*http.Response, error) {
		id := "https://v/" + strings.Split(req.URL.Path, "/")[1] + "/one/" + version1
		return respond(req, 200, fmt.Sprintf(`{"id":%q,"value":%q,"cer":"AAAA","key":{"kid":%q,"kty":"oct"}}`, id, req.URL.Host, id)), nil
	})
	source, client := f.client()
	who := principal(t, source, "c", "s")
	for range 2 {
		for _, at := range []string{vaultURL, "https://beta.vault.azure.net", "https://ALPHA.vault.azure.net/"} {
			for _, version := range []string{"", version1} {
				s, err := client.Secret(t.Context(), who, at, "one", version)
				if err != nil || "https://"+string(s.Value) != strings.ToLower(strings.TrimSuffix(at, "/")) {
					t.Fatalf("%s: %v, %v", at, s, err)
				}
			}
		}
		if _, err := client.Key(t.Context(), who, vaultURL, "one", ""); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Certificate(t.Context(), who, vaultURL, "one", ""); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(f.requests("")); n != 6 {
		t.Errorf("%d requests, want 6", n)
	}
}
