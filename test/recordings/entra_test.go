package recordings

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"keymount/internal/emulator"
)

// recordedTenant is the name that the recorder put in place of the tenant's id.
const recordedTenant = "fake-tenant"

// entraNotServed are requests of flows that no pod uses, and of what other parts of the emulator are for.
func entraNotServed(rec string, e entry, u *url.URL) string {
	token := strings.HasSuffix(u.Path, "/token")
	switch {
	case u.Host == "169.254.169.254":
		return "instance metadata"
	case strings.Contains(u.Host, ".r."):
		return "regional endpoints"
	case strings.Contains(u.Path, "/UserRealm/") || strings.HasSuffix(u.Path, "/devicecode"):
		return "sign-in of users"
	case token && (strings.Contains(rec, "DeviceCode") || strings.Contains(rec, "Password")):
		return "sign-in of users"
	case token && strings.Contains(rec, "ClientCertificate"):
		return "client certificates"
	}
	return ""
}

func TestEntraRecordings(t *testing.T) {
	total := &tally{}
	all := load(t, source{"pins", sdk + "azidentity"})
	for _, rec := range all {
		for i, e := range rec.entries {
			u, err := url.Parse(e.URI)
			if err != nil {
				t.Fatal(err)
			}
			if reason := entraNotServed(rec.name, e, u); reason != "" {
				total.skip(reason)
				continue
			}
			total.Requests++
			total.entra(t, rec.name, i, e, u)
		}
	}
	for _, d := range total.differences {
		t.Error(d)
	}
	t.Logf("%d recordings of Entra ID: %s; not compared: %v", len(all), total, total.skipped)
	if got, want := []int{total.Requests, total.Headers, total.Members, total.Values}, []int{30, 218, 1237, 963}; !slices.Equal(got, want) {
		t.Errorf("compared %v requests, headers, members and values; want %v", got, want)
	}
}

func (s *tally) entra(t *testing.T, name string, i int, e entry, u *url.URL) {
	server := emulator.New(emulator.Options{SigningKey: signingKey()})
	err := server.Load(emulator.Seed{Tenants: []emulator.Tenant{{ID: recordedTenant, Apps: []emulator.App{{ClientID: client, ClientSecret: secretText}}}}})
	if err != nil {
		t.Fatal(err)
	}
	place := name + " " + e.Method + " " + u.Path
	// The recorder took the bodies out: what was sent is known from the recording's name.
	form := ""
	if e.Method == http.MethodPost {
		secret := secretText
		if strings.Contains(name, "Invalid") {
			secret = "wrong"
		}
		form = url.Values{"grant_type": {"client_credentials"}, "client_id": {client}, "client_secret": {secret}, "scope": {"https://management.azure.com/.default"}}.Encode()
	}
	req := httptest.NewRequest(e.Method, e.URI, strings.NewReader(form))
	res := httptest.NewRecorder()
	server.ServeHTTP(res, req)
	if res.Code != e.Status {
		s.differ(place, "status: recorded %d, emulated %d: %.300s", e.Status, res.Code, res.Body)
		return
	}
	want := http.Header{}
	for k, v := range e.ResponseHeaders {
		want.Set(k, string(v))
	}
	s.headers(place, want, res.Header(), false)
	w, err := parse(e.ResponseBody)
	if err != nil {
		t.Fatal(err)
	}
	g, err := parse(res.Body.Bytes())
	if err != nil {
		s.differ(place, "the body is not JSON: %v", err)
		return
	}
	s.members(place, w, g, func(want, got string) bool { return want == got })
}
