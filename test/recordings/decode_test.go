package recordings

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"keymount/internal/azure/identity"
	"keymount/internal/azure/params"
	"keymount/internal/azure/vault"
	"keymount/internal/emulator"
	"keymount/internal/provider"
)

// A player serves recorded answers over TLS, whatever the host name, and access tokens of an emulator.
type player struct {
	mu      sync.Mutex
	answers map[string]entry // by path and skip token
	entra   *emulator.Server
}

func (p *player) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Host == "login.microsoftonline.com" {
		r.TLS = nil // its server name is that of the test server's certificate
		p.entra.ServeHTTP(w, r)
		return
	}
	p.mu.Lock()
	e, ok := p.answers[pageKey(r.URL)]
	p.mu.Unlock()
	if !ok {
		http.Error(w, "no such recording", http.StatusTeapot)
		return
	}
	for name, value := range e.ResponseHeaders {
		if name != "Content-Length" && name != "Date" {
			w.Header().Set(name, string(value))
		}
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write(e.ResponseBody)
}

func pageKey(u *url.URL) string {
	return strings.ToLower(strings.TrimSuffix(u.Path, "/")) + "?" + u.Query().Get("$skiptoken")
}

// A reader is the provider's client in front of a player.
type reader struct {
	t      *testing.T
	player *player
	client *vault.Client
	who    *identity.Credential
	counts struct{ secrets, keys, certificates, refusals, lists, pages, versions int }
}

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{t: t, player: &player{answers: map[string]entry{}, entra: emulator.New(emulator.Options{SigningKey: signingKey()})}}
	err := r.player.entra.Load(emulator.Seed{Tenants: []emulator.Tenant{{ID: tenant, Apps: []emulator.App{{ClientID: client, ClientSecret: secretText}}}}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(r.player)
	t.Cleanup(server.Close)
	transport := server.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.ServerName = "example.com"
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
	}
	transport.TLSClientConfig.MinVersion = tls.VersionTLS12
	t.Cleanup(transport.CloseIdleConnections)
	source := identity.NewFromRequest(identity.Config{Transport: transport})
	r.client = vault.New(vault.Config{Transport: transport})
	r.who, err = source.Credential(t.Context(), &provider.Request{Secrets: map[string]provider.Sensitive{"clientid": client, "clientsecret": secretText}},
		identity.Spec{Mode: params.ServicePrincipal, TenantID: tenant, Authority: "https://login.microsoftonline.com", Resource: "https://vault.azure.net"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestProviderReadsRecordings feeds every recorded bundle that a read can answer, every refusal of a read and every list of versions to the
// provider's client, and compares what it makes of them with the JSON itself.
func TestProviderReadsRecordings(t *testing.T) {
	r := newReader(t)
	for _, src := range vaultSources() {
		for _, rec := range load(t, src) {
			for i, e := range rec.entries {
				e.ResponseBody = bytes.ReplaceAll(e.ResponseBody, []byte(unsanitised), []byte("fakekvurl.vault.azure.net"))
				rec.entries[i] = e
			}
			for i, e := range rec.entries {
				r.entry(rec, i, e)
			}
		}
	}
	c := r.counts
	t.Logf("read by the provider: %d secrets, %d keys, %d certificates, %d refusals, %d lists of versions with %d pages and %d versions",
		c.secrets, c.keys, c.certificates, c.refusals, c.lists, c.pages, c.versions)
	got := []int{c.secrets, c.keys, c.certificates, c.refusals, c.lists, c.pages, c.versions}
	if want := []int{14, 136, 7, 9, 6, 14, 26}; !slices.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
}

func (r *reader) entry(rec recording, i int, e entry) {
	u, err := url.Parse(e.URI)
	if err != nil {
		r.t.Fatal(err)
	}
	body, err := parse(e.ResponseBody)
	if err != nil || body.kind != "object" {
		return
	}
	place := rec.name + " " + e.Method + " " + u.Path
	seg := strings.Split(strings.Trim(u.Path, "/"), "/")
	deleted := body.get("recoveryId") != nil
	switch {
	case e.Status >= 400 && e.Method == http.MethodGet && e.Status != http.StatusUnauthorized && len(seg) <= 3 &&
		!strings.HasPrefix(u.Path, "/deleted") && seg[len(seg)-1] != "rotationpolicy":
		r.refusal(place, u, seg, e)
	case e.Status >= 300 || deleted:
	case strings.HasSuffix(u.Path, "/versions") && !strings.Contains(u.RawQuery, "skiptoken"):
		r.list(place, rec, i, u, seg)
	case body.get("value") != nil && body.get("value").kind == "string" && body.get("id") != nil:
		r.secret(place, u, body, e)
	case body.get("key") != nil:
		r.key(place, u, body, e)
	case body.get("cer") != nil:
		r.certificate(place, u, body, e)
	}
}

// serve makes the answer be there under an object's own address, and returns name and version.
func (r *reader) serve(id string, e entry) (name, version string) {
	u, err := url.Parse(id)
	if err != nil {
		r.t.Fatal(err)
	}
	seg := strings.Split(strings.Trim(u.Path, "/"), "/")
	e.Status = http.StatusOK
	r.player.mu.Lock()
	r.player.answers = map[string]entry{pageKey(u): e}
	r.player.mu.Unlock()
	return seg[1], seg[2]
}

func (r *reader) secret(place string, u *url.URL, body *node, e entry) {
	r.counts.secrets++
	name, version := r.serve(body.text("id"), e)
	got, err := r.client.Secret(r.t.Context(), r.who, "https://"+u.Host, name, version)
	if err != nil {
		r.t.Errorf("%s: %v", place, err)
		return
	}
	if string(got.Value) != body.text("value") || got.ContentType != body.text("contentType") || got.KeyID != body.text("kid") || got.Version != version {
		r.t.Errorf("%s: read as version %s, content type %q, key %q, or another value", place, got.Version, got.ContentType, got.KeyID)
	}
	r.attributes(place, body, got.Attributes)
}

func (r *reader) key(place string, u *url.URL, body *node, e entry) {
	r.counts.keys++
	name, version := r.serve(body.text("key", "kid"), e)
	got, err := r.client.Key(r.t.Context(), r.who, "https://"+u.Host, name, version)
	if err != nil {
		r.t.Errorf("%s: %v", place, err)
		return
	}
	if got.Type != body.text("key", "kty") || got.Curve != body.text("key", "crv") || got.Version != version {
		r.t.Errorf("%s: read as type %q, curve %q, version %s", place, got.Type, got.Curve, got.Version)
	}
	for name, have := range map[string][]byte{"n": got.N, "e": got.E, "x": got.X, "y": got.Y} {
		want, err := base64.RawURLEncoding.DecodeString(body.text("key", name))
		if err != nil || !bytes.Equal(bytes.TrimLeft(want, "\x00"), bytes.TrimLeft(have, "\x00")) {
			r.t.Errorf("%s: %s is read as %x", place, name, have)
		}
	}
	r.attributes(place, body, got.Attributes)
}

func (r *reader) certificate(place string, u *url.URL, body *node, e entry) {
	r.counts.certificates++
	name, version := r.serve(body.text("id"), e)
	got, err := r.client.Certificate(r.t.Context(), r.who, "https://"+u.Host, name, version)
	if err != nil {
		r.t.Errorf("%s: %v", place, err)
		return
	}
	if base64.StdEncoding.EncodeToString(got.DER) != body.text("cer") || got.Version != version {
		r.t.Errorf("%s: read as version %s with %d bytes", place, got.Version, len(got.DER))
	}
	r.attributes(place, body, got.Attributes)
}

func (r *reader) attributes(place string, body *node, got vault.Attributes) {
	a := body.get("attributes")
	if got.Enabled != (a.get("enabled").leaf == true) || !got.Created.Equal(unix(a.get("created"))) || !got.Updated.Equal(unix(a.get("updated"))) ||
		!got.NotBefore.Equal(unix(a.get("nbf"))) || !got.Expires.Equal(unix(a.get("exp"))) {
		r.t.Errorf("%s: attributes are read as %+v", place, got)
	}
}

func (r *reader) refusal(place string, u *url.URL, seg []string, e entry) {
	r.counts.refusals++
	r.player.mu.Lock()
	r.player.answers = map[string]entry{pageKey(u): e}
	r.player.mu.Unlock()
	version := ""
	if len(seg) == 3 {
		version = seg[2]
	}
	var err error
	switch seg[0] {
	case "secrets":
		_, err = r.client.Secret(r.t.Context(), r.who, "https://"+u.Host, seg[1], version)
	case "keys":
		_, err = r.client.Key(r.t.Context(), r.who, "https://"+u.Host, seg[1], version)
	default:
		_, err = r.client.Certificate(r.t.Context(), r.who, "https://"+u.Host, seg[1], version)
	}
	var pe *provider.Error
	if !errors.As(err, &pe) || e.Status == http.StatusNotFound && pe.Kind != provider.NotFound {
		r.t.Errorf("%s: status %d is read as %v", place, e.Status, err)
	}
}

// list serves all pages from the one at i on.
func (r *reader) list(place string, rec recording, i int, u *url.URL, seg []string) {
	answers := map[string]entry{}
	want := map[string]*node{}
	for _, e := range rec.entries[i:] {
		pu, err := url.Parse(e.URI)
		if err != nil || pu.Path != u.Path || e.Status != http.StatusOK {
			continue
		}
		page, err := parse(e.ResponseBody)
		if err != nil {
			r.t.Fatal(err)
		}
		answers[pageKey(pu)] = e
		for _, item := range page.get("value").items {
			id := item.text("id") + item.text("kid")
			want[id[strings.LastIndex(id, "/")+1:]] = item
		}
		if page.get("nextLink") == nil || page.get("nextLink").kind == "null" {
			break
		}
	}
	r.counts.lists++
	r.counts.pages += len(answers)
	r.player.mu.Lock()
	r.player.answers = answers
	r.player.mu.Unlock()
	k := map[string]vault.Kind{"secrets": vault.KindSecret, "keys": vault.KindKey, "certificates": vault.KindCertificate}[seg[0]]
	got, err := r.client.Versions(r.t.Context(), r.who, "https://"+u.Host, k, seg[1])
	if err != nil {
		r.t.Errorf("%s: %v", place, err)
		return
	}
	if len(got) != len(want) {
		r.t.Errorf("%s: %d versions are read, want %d", place, len(got), len(want))
	}
	for _, v := range got {
		r.counts.versions++
		if want[v.Version] == nil {
			r.t.Errorf("%s: version %s is not in the recording", place, v.Version)
			continue
		}
		r.attributes(place+" "+v.Version, want[v.Version], v.Attributes)
	}
}
