package identity_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"keymount/internal/azure/identity"
)

// What a proxy says of a host must reach people, and be told from what a host says.
func TestProxyRefusal(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer proxy.Close()
	address, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	address.User = url.UserPassword("user", "the-proxy-password")
	transport := identity.NewTransport()
	transport.Proxy = http.ProxyURL(address)
	req := httptest.NewRequest(http.MethodGet, "https://alpha.vault.azure.net/secrets/a", nil)
	_, err = transport.RoundTrip(req.WithContext(t.Context()))
	var refusal *identity.ProxyRefusal
	if !errors.As(err, &refusal) || refusal.Code != http.StatusBadGateway {
		t.Fatalf("got %v, want a refusal by the proxy", err)
	}
	const want = "the proxy does not connect to alpha.vault.azure.net:443: 502 Bad Gateway"
	if got := identity.NetworkCause(err); got != want {
		t.Errorf("cause %q, want %q", got, want)
	}
}
