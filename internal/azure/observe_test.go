package azure_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"keymount/internal/azure"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
)

// agents is a transport that notes how the program calls itself, by host.
type agents struct {
	http.RoundTripper
	mu   sync.Mutex
	said map[string]bool
}

func (a *agents) RoundTrip(req *http.Request) (*http.Response, error) {
	a.mu.Lock()
	a.said[req.URL.Hostname()+" "+req.Header.Get("User-Agent")] = true
	a.mu.Unlock()
	return a.RoundTripper.RoundTrip(req)
}

// Every request, to the vault and for the token, names the program as the operator has it.
func TestUserAgent(t *testing.T) {
	e := emulatortest.Start(t, emulatortest.DefaultSeed(vaultName))
	a := &agents{RoundTripper: e.Transport(), said: map[string]bool{}}
	r := startWith(t, e, func(c *azure.Config) { c.Transport, c.UserAgent = a, "keymount-azure/1 team-7" })
	r.PutSecret(vaultName, "alpha", "a")
	r.mount(t, array(entry("secret", "alpha")))
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, host := range []string{"login.microsoftonline.com", vaultName + ".vault.azure.net"} {
		if !a.said[host+" keymount-azure/1 team-7"] {
			t.Errorf("%s has not heard of it: %v", host, a.said)
		}
	}
	if len(a.said) != 2 {
		t.Errorf("some requests named another: %v", a.said)
	}
}

// The operator hears of every read, with what came of it.
func TestObserve(t *testing.T) {
	var mu sync.Mutex
	var got []string
	r := start(t, func(c *azure.Config) {
		c.Observe = func(read azure.Read) {
			mu.Lock()
			defer mu.Unlock()
			said := read.ObjectType + " ok"
			if read.Err != nil {
				said = read.ObjectType + " " + provider.KindOf(read.Err).String()
			}
			if read.Took <= 0 {
				t.Errorf("%s took %v", said, read.Took)
			}
			got = append(got, said)
		}
	})
	r.PutSecret(vaultName, "alpha", "not hexadecimal")
	r.PutSecret(vaultName, "alpha", "nor this")
	notFound, invalid := provider.NotFound.String(), provider.Invalid.String()
	for _, tc := range []struct {
		objects string
		want    []string
	}{
		{array(entry("secret", "alpha")), []string{"secret ok"}},
		{array(entry("secret", "alpha", "objectVersionHistory: 2")), []string{"secret ok", "secret ok", "secret ok"}}, // the list, too
		{array(entry("secret", "alpha", "objectEncoding: hex")), []string{"secret " + invalid}},
		{array(entry("secret", "nosuch"), entry("key", "nokey"), entry("cert", "nocert")),
			[]string{"cert " + notFound, "key " + notFound, "secret " + notFound}},
	} {
		mu.Lock()
		got = nil
		mu.Unlock()
		r.Fetch(t.Context(), r.request(tc.objects))
		mu.Lock()
		slices.Sort(got)
		if fmt.Sprint(got) != fmt.Sprint(tc.want) {
			t.Errorf("%s: heard %s, want %s", strings.ReplaceAll(tc.objects, "\n", " "), got, tc.want)
		}
		mu.Unlock()
	}
}
