package vault_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keymount/internal/provider"
)

// A read runs on a goroutine that belongs to no caller, so that nobody else could survive its panic: it would end the
// process, for every pod of the node.
func TestAPanicFailsItsReadOnly(t *testing.T) {
	f := newFake(func(req *http.Request, _ int) (*http.Response, error) {
		if strings.Contains(req.URL.Path, "odd") {
			panic("with a hidden value")
		}
		return secret(req, "value"), nil
	})
	source, client := f.client()
	who := principal(t, source, "c", "s")
	_, err := client.Secret(t.Context(), who, vaultURL, "odd", "")
	if provider.KindOf(err) != provider.Internal || err == nil || !strings.Contains(err.Error(), `secret "odd"`) || strings.Contains(err.Error(), "hidden") {
		t.Errorf("kind %v: %v", provider.KindOf(err), err)
	}
	if _, err := client.Secret(t.Context(), who, vaultURL, "even", ""); err != nil {
		t.Errorf("another read: %v", err)
	}
	if _, _, all := client.Kept(); all != 1 {
		t.Errorf("%d reads are remembered, want the one that succeeded", all)
	}
}

// Whoever brings a vault to ask for an hour's rest stops the others of the node for half a minute, not for the hour.
func TestNobodyStopsAVaultForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(req *http.Request, n int) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "provoking") {
				return throttled(req, "Retry-After: 3600"), nil
			}
			return secret(req, "value"), nil
		})
		source, client := f.client()
		ctx, cancel := context.WithTimeout(t.Context(), 110*time.Second)
		defer cancel()
		_, err := client.Secret(ctx, principal(t, source, "attacker", "a"), vaultURL, "provoking", "")
		if provider.KindOf(err) != provider.Throttled {
			t.Fatalf("kind %v: %v", provider.KindOf(err), err)
		}
		start := time.Now()
		if _, err := client.Secret(ctx, principal(t, source, "victim", "v"), vaultURL, "quiet", ""); err != nil {
			t.Errorf("another identity: %v", err)
		}
		if waited := time.Since(start); waited < time.Second || waited > 31*time.Second {
			t.Errorf("another identity waited for %v, want up to 30 s", waited)
		}
	})
}

// An answer that something on the way has put into another encoding must not become another secret.
func TestAnswersAreUTF8(t *testing.T) {
	f := newFake(func(req *http.Request, _ int) (*http.Response, error) { return secret(req, "p\u00e4ssword"), nil })
	source, client := f.client()
	who := principal(t, source, "c", "s")
	if s, err := client.Secret(t.Context(), who, vaultURL, "one", ""); err != nil || string(s.Value) != "p\u00e4ssword" {
		t.Errorf("%v, %v", s, err)
	}
	f.answer = func(req *http.Request, _ int) (*http.Response, error) {
		resp := secret(req, "PASSWORD")
		body, err := io.ReadAll(resp.Body)
		resp.Body = io.NopCloser(bytes.NewReader(bytes.ReplaceAll(body, []byte("PASSWORD"), []byte("p\xe4ssword")))) // Latin-1
		return resp, err
	}
	s, err := client.Secret(t.Context(), who, vaultURL, "two", "")
	if provider.KindOf(err) != provider.Internal || err == nil || !strings.Contains(err.Error(), "not UTF-8") || strings.Contains(err.Error(), "ssword") {
		t.Errorf("%v, kind %v: %v", s, provider.KindOf(err), err)
	}
}
