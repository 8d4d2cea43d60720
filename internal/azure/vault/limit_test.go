package vault_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"crypto/tls"
	"crypto/x509"

	"keymount/internal/azure/identity"
	"keymount/internal/azure/vault"
	"keymount/internal/provider"
)

// Each row is a vault's behaviour by the number of the try, and what a read makes of it.
func TestRetries(t *testing.T) {
	type answer = func(req *http.Request, n int) (*http.Response, error)
	always := func(status int, header ...string) answer {
		return func(req *http.Request, _ int) (*http.Response, error) {
			return respond(req, status, `{"error":{"code":"Code","message":"Message"}}`, header...), nil
		}
	}
	once := func(first answer) answer {
		return func(req *http.Request, n int) (*http.Response, error) {
			if n == 1 {
				return first(req, n)
			}
			return secret(req, "value"), nil
		}
	}
	failing := func(err error) answer {
		return func(*http.Request, int) (*http.Response, error) { return nil, err }
	}
	hang := func(req *http.Request, _ int) (*http.Response, error) {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	date := func(after time.Duration) answer {
		return func(req *http.Request, n int) (*http.Response, error) {
			return always(429, "Retry-After: "+time.Now().Add(after).UTC().Format(http.TimeFormat))(req, n)
		}
	}
	const s = time.Second
	for _, tc := range []struct {
		name     string
		answer   answer
		tries    int
		from, to time.Duration // how long it takes
		kind     provider.Kind
		want     string // of the error; "" is success
		after    time.Duration
	}{
		{"503 once", once(always(503)), 2, 600 * time.Millisecond, 2 * s, 0, "", 0},
		{"408 once", once(always(408)), 2, 600 * time.Millisecond, 2 * s, 0, "", 0},
		{"500 for ever", always(500), 5, 14 * s, 30 * s, provider.Unavailable, "HTTP 500 Code: Message", 0},
		{"429 once, no header", once(always(429)), 2, 600 * time.Millisecond, 2 * s, 0, "", 0},
		{"429 once, in seconds", once(always(429, "Retry-After: 7")), 2, 7 * s, 7 * s, 0, "", 0},
		{"429 once, as a date", once(date(7 * s)), 2, 6 * s, 7 * s, 0, "", 0},
		{"429 once, in milliseconds", once(always(429, "Retry-After-Ms: 2500")), 2, 2500 * time.Millisecond, 2500 * time.Millisecond, 0, "", 0},
		{"429 once, come back in 90 s", once(always(429, "Retry-After: 90")), 1, 0, 0, provider.Throttled, "asked for too much", 90 * s},
		{"429 once, come back in 300 years", once(always(429, "Retry-After: 9999999999")), 1, 0, 0, provider.Throttled, "asked for too much", time.Hour},
		{"429 for ever", always(429), 0, 60 * s, 110 * s, provider.Throttled, "HTTP 429 Code: Message; tried until the time for it was over", 0},
		{"401 for ever", always(401), 2, 0, 0, provider.Denied, "HTTP 401", 0},
		{"403", once(always(403)), 1, 0, 0, provider.Denied, "HTTP 403", 0},
		{"404", once(always(404)), 1, 0, 0, provider.NotFound, "HTTP 404", 0},
		{"400", once(always(400)), 1, 0, 0, provider.Invalid, "HTTP 400", 0},
		{"a hang once", once(hang), 2, 10 * s, 12 * s, 0, "", 0},
		{"a hang for ever", hang, 5, 60 * s, 90 * s, provider.Unavailable, "no answer in time", 0},
		{"cut once", once(failing(errors.New("unexpected EOF"))), 2, 600 * time.Millisecond, 2 * s, 0, "", 0},
		{"no such host", failing(&net.DNSError{Err: "no such host", Name: "alpha.vault.azure.net", IsNotFound: true}), 2, 0, 2 * s,
			provider.Unavailable, "no address for host alpha.vault.azure.net (check keyvaultName", 0},
		{"a proxy that finds no such host", failing(&identity.ProxyRefusal{Host: "alpha.vault.azure.net:443", Status: "502 Bad Gateway", Code: 502}), 2, 0, 2 * s,
			provider.Unavailable, "the proxy does not connect to alpha.vault.azure.net:443: 502 Bad Gateway (check keyvaultName", 0},
		{"a proxy that may not", failing(&identity.ProxyRefusal{Host: "alpha.vault.azure.net:443", Status: "403 Forbidden", Code: 403}), 1, 0, 0,
			provider.Unavailable, "403 Forbidden (check keyvaultName", 0},
		{"name service down", failing(&net.DNSError{Err: "server misbehaving", Name: "alpha.vault.azure.net"}), 5, 14 * s, 30 * s,
			provider.Unavailable, "private DNS zone", 0},
		{"connection refused", failing(&net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}), 5, 14 * s, 30 * s,
			provider.Unavailable, "connecting failed: connection refused (check that this machine reaches", 0},
		{"a certificate nobody trusts", failing(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), 1, 0, 0,
			provider.Unavailable, "SSL_CERT_FILE", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(tc.answer)
				source, client := f.client()
				who := principal(t, source, "c", "s")
				start := time.Now()
				got := <-get(t.Context(), client, who, "one")
				took := time.Since(start)
				if tc.want == "" && (got.err != nil || got.value != "value") {
					t.Errorf("%q, %v", got.value, got.err)
				}
				var e *provider.Error
				if tc.want != "" && (!errors.As(got.err, &e) || e.Kind != tc.kind || e.RetryAfter != tc.after || !strings.Contains(got.err.Error(), tc.want)) {
					t.Errorf("%#v, want kind %v, after %v, text %q", got.err, tc.kind, tc.after, tc.want)
				}
				if n := len(f.requests("")); tc.tries != 0 && n != tc.tries {
					t.Errorf("%d tries, want %d", n, tc.tries)
				}
				if took < tc.from || took > tc.to {
					t.Errorf("it took %v, want %v to %v", took, tc.from, tc.to)
				}
			})
		})
	}
}

// Delays grow from 0.8 s, twice and more each time, with jitter, up to half a minute.
func TestDelaysGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(req *http.Request, _ int) (*http.Response, error) { return throttled(req), nil })
		source, client := f.client()
		<-get(t.Context(), client, principal(t, source, "c", "s"), "one")
		times := f.requests("/secrets/one")
		for i := 1; i < len(times); i++ {
			d := times[i].Sub(times[i-1])
			least := min(time.Duration(600<<(i-1))*time.Millisecond, 22*time.Second)
			if d < least || d > 40*time.Second {
				t.Errorf("delay %d is %v, want at least %v", i, d, least)
			}
		}
		if len(times) < 5 || len(times) > 9 {
			t.Errorf("%d tries in %v", len(times), times[len(times)-1].Sub(times[0]))
		}
	})
}

// Whoever gives up while a read waits for its next try learns why it waits.
func TestGivingUpNamesTheTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(req *http.Request, _ int) (*http.Response, error) { return throttled(req, "Retry-After: 20"), nil })
		source, client := f.client()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		got := <-get(ctx, client, principal(t, source, "c", "s"), "one")
		var e *provider.Error
		if !errors.As(got.err, &e) || e.Kind != provider.Throttled || e.RetryAfter != 20*time.Second || !errors.Is(got.err, context.DeadlineExceeded) ||
			!strings.Contains(got.err.Error(), "VaultRequestTypeLimitReached") {
			t.Errorf("%#v", got.err)
		}
	})
}

func TestReadsInFlightAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(req *http.Request, _ int) (*http.Response, error) {
			time.Sleep(time.Second)
			return secret(req, "value"), nil
		})
		source, client := f.client(func(c *vault.Config) { c.ReadsInFlight = 8 })
		who := principal(t, source, "c", "s")
		start := time.Now()
		var reads []chan result
		for i := range 80 {
			reads = append(reads, get(t.Context(), client, who, fmt.Sprint("s", i)))
		}
		for _, r := range reads {
			if got := <-r; got.err != nil {
				t.Fatal(got.err)
			}
		}
		if f.most != 8 || time.Since(start) != 10*time.Second {
			t.Errorf("%d at a time, in %v", f.most, time.Since(start))
		}
		if n := client.RememberedVaults(); n != 0 {
			t.Errorf("%d vaults are remembered for nothing", n)
		}
	})
}

// One identity with many reads does not keep out one with a single read, and whoever gives up leaves the queue.
func TestIdentitiesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(req *http.Request, _ int) (*http.Response, error) {
			time.Sleep(time.Second)
			return secret(req, "value"), nil
		})
		source, client := f.client(func(c *vault.Config) { c.ReadsInFlight = 2 })
		greedy, modest := principal(t, source, "greedy", "s"), principal(t, source, "modest", "s")
		hurried, cancel := context.WithCancel(t.Context())
		start := time.Now()
		var reads []chan result
		for i := range 50 {
			ctx := t.Context()
			if i >= 40 {
				ctx = hurried
			}
			reads = append(reads, get(ctx, client, greedy, fmt.Sprint("g", i)))
		}
		synctest.Wait()
		one := get(t.Context(), client, modest, "m")
		if got := <-one; got.err != nil {
			t.Fatal(got.err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("a single read waited %v behind fifty others", took)
		}
		cancel()
		for i, r := range reads {
			got := <-r
			if i < 40 && got.err != nil {
				t.Fatal(got.err)
			}
		}
		if n := len(f.requests("")); n > 51 || n < 41 {
			t.Errorf("%d requests", n)
		}
		synctest.Wait()
		if n := client.RememberedVaults(); n != 0 {
			t.Errorf("%d vaults are remembered for nothing", n)
		}
	})
}

// A vault that throttles is left alone by all who wait for it, not only by the one that it told, and taken up again
// gently; other vaults are not slowed.
func TestThrottledVaultIsSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		const limit = 5 // requests per second
		f := newFake(nil)
		var window []time.Time
		f.answer = func(req *http.Request, _ int) (*http.Response, error) {
			now := time.Now()
			f.mu.Lock()
			window = slices.DeleteFunc(window, func(at time.Time) bool { return now.Sub(at) >= time.Second })
			over := len(window) >= limit && req.URL.Host == "alpha.vault.azure.net"
			window = append(window, now)
			f.mu.Unlock()
			time.Sleep(20 * time.Millisecond)
			if over {
				return throttled(req), nil
			}
			return secret(req, "value"), nil
		}
		source, client := f.client()
		who := principal(t, source, "c", "s")
		var reads []chan result
		for i := range 100 {
			reads = append(reads, get(t.Context(), client, who, fmt.Sprint("s", i)))
		}
		time.Sleep(time.Second)
		other := time.Now()
		if _, err := client.Secret(t.Context(), who, "https://beta.vault.azure.net", "s0", ""); err != nil || time.Since(other) > 50*time.Millisecond {
			t.Errorf("another vault took %v, %v", time.Since(other), err)
		}
		for _, r := range reads {
			if got := <-r; got.err != nil {
				t.Fatal(got.err)
			}
		}
		n := len(f.requests(""))
		t.Logf("100 reads from a vault that allows %d a second: %d requests in %v", limit, n, time.Since(start))
		if n > 300 {
			t.Errorf("%d requests for 100 reads", n)
		}
	})
}

// A pause longer than a caller can wait is told at once.
func TestLongPauseIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(req *http.Request, _ int) (*http.Response, error) { return throttled(req, "Retry-After: 25"), nil })
		source, client := f.client(func(c *vault.Config) { c.ReadTimeout = 10 * time.Second })
		who := principal(t, source, "c", "s")
		start := time.Now()
		for _, name := range []string{"one", "two"} {
			got := <-get(t.Context(), client, who, name)
			var e *provider.Error
			if !errors.As(got.err, &e) || e.Kind != provider.Throttled || e.RetryAfter != 25*time.Second {
				t.Errorf("%s: %#v", name, got.err)
			}
		}
		if n := len(f.requests("")); n != 1 || time.Since(start) != 0 {
			t.Errorf("%d requests in %v", n, time.Since(start))
		}
	})
}

// Vaults that throttled and are then forgotten by everybody do not add up.
func TestVaultsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(req *http.Request, _ int) (*http.Response, error) { return throttled(req, "Retry-After: 90"), nil })
		source, client := f.client()
		who := principal(t, source, "c", "s")
		for i := range 300 {
			_, err := client.Secret(t.Context(), who, fmt.Sprintf("https://v%d.vault.azure.net", i), "one", "")
			if provider.KindOf(err) != provider.Throttled {
				t.Fatal(err)
			}
		}
		if n := client.RememberedVaults(); n > 256 {
			t.Errorf("%d vaults are remembered", n)
		}
	})
}

// A token that is being fetched holds up nobody who has one.
func TestTokenFetchDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(req *http.Request, _ int) (*http.Response, error) { return secret(req, "value"), nil })
		source, client := f.client()
		warm := principal(t, source, "warm", "s")
		if got := <-get(t.Context(), client, warm, "one"); got.err != nil {
			t.Fatal(got.err)
		}
		var cold []chan result
		slow := newFake(f.answer)
		slowSource := identity.NewFromRequest(identity.Config{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodPost {
				time.Sleep(5 * time.Second)
			}
			return slow.RoundTrip(req)
		})})
		for i := range 40 {
			cold = append(cold, get(t.Context(), client, principal(t, slowSource, "cold", "s"), fmt.Sprint("c", i)))
		}
		synctest.Wait()
		start := time.Now()
		if got := <-get(t.Context(), client, warm, "two"); got.err != nil || time.Since(start) != 0 {
			t.Errorf("a read with a token took %v, %v", time.Since(start), got.err)
		}
		for _, r := range cold {
			if got := <-r; got.err != nil {
				t.Fatal(got.err)
			}
		}
	})
}

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
