package identity

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

type answers func(req *http.Request) (*http.Response, error)

func (f answers) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// discoveryOf lets each host say of itself where tokens are to be had, and counts the requests.
func discoveryOf(t *testing.T, answer func(address string) string) (get func(address string) string, asked *int) {
	t.Helper()
	clock := time.Now()
	asked = new(int)
	d := newDiscovery(answers(func(req *http.Request) (*http.Response, error) {
		*asked++
		return &http.Response{StatusCode: 200, Header: http.Header{}, Request: req,
			Body: io.NopCloser(strings.NewReader(answer(req.URL.Scheme + "://" + req.URL.Host + req.URL.Path)))}, nil
	}), func() time.Time { return clock })
	return func(address string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := d.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}, asked
}

// What one authority says of itself must never be taken for another's: tokens and client secrets go where it says.
func TestDiscoveryOfOneAuthorityIsNotAnothers(t *testing.T) {
	get, asked := discoveryOf(t, func(address string) string { return `{"token_endpoint":"` + address + `"}` })
	addresses := []string{
		"https://login.example/tenant/v2.0" + discoveryPath,
		"https://login.attacker.example/tenant/v2.0" + discoveryPath,
		"https://login.example/other/v2.0" + discoveryPath,
		"https://login.example:444/tenant/v2.0" + discoveryPath,
		"https://login.example/tenant%2Fv2.0" + discoveryPath,
	}
	for range 2 {
		for _, address := range addresses {
			if got := get(address); !strings.Contains(got, strings.ReplaceAll(address, "%2F", "/")) {
				t.Errorf("%s is told %s", address, got)
			}
		}
	}
	if *asked != len(addresses) {
		t.Errorf("%d requests, want one for each of %d addresses", *asked, len(addresses))
	}
}

// A captive portal's page, or a document that would send secrets over plain HTTP, is passed on once and not kept.
func TestUnusableDiscoveryIsNotKept(t *testing.T) {
	for _, bad := range []string{"<html>", "", "{}", `{"token_endpoint":"http://login.example/token"}`, `{"token_endpoint":7}`} {
		now := bad
		const good = `{"token_endpoint":"https://login.example/token"}`
		get, asked := discoveryOf(t, func(string) string { return now })
		const address = "https://login.example/tenant/v2.0" + discoveryPath
		if got := get(address); got != bad {
			t.Errorf("%q became %q", bad, got)
		}
		now = good
		for range 2 {
			if got := get(address); got != good {
				t.Errorf("after %q one gets %q", bad, got)
			}
		}
		if *asked != 2 {
			t.Errorf("after %q: %d requests, want 2", bad, *asked)
		}
	}
}

// A panic ends one fetch, not the tenant: nobody is left waiting for it.
func TestPanicDuringDiscoveryHoldsUpNobody(t *testing.T) {
	const good = `{"token_endpoint":"https://login.example/token"}`
	first := true
	get, _ := discoveryOf(t, func(string) string {
		if first {
			first = false
			panic("odd answer")
		}
		return good
	})
	const address = "https://login.example/tenant/v2.0" + discoveryPath
	func() {
		defer func() { recover() }() // as the fetch of a token does
		get(address)
		t.Error("no panic")
	}()
	answered := make(chan string, 1)
	go func() { answered <- get(address) }()
	select {
	case got := <-answered:
		if got != good {
			t.Errorf("got %q", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the next one waits for a fetch that has ended")
	}
}
