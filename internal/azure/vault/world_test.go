package vault_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"keymount/internal/azure/identity"
	"keymount/internal/azure/params"
	"keymount/internal/azure/vault"
	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
)

const (
	vaultURL    = "https://alpha.vault.azure.net"
	otherClient = "66666666-6666-4666-8666-666666666666"
)

// A world is an emulator with one vault and a process that reads from it.
type world struct {
	*emulatortest.Emulator
	t         *testing.T
	transport http.RoundTripper
	source    *identity.FromRequest
	client    *vault.Client
	tokens    map[string]string // of podOnce, by uid
}

func newWorld(t *testing.T, change ...func(*emulator.Seed)) *world {
	t.Helper()
	seed := emulatortest.DefaultSeed("alpha")
	seed.Tenants[0].Apps = append(seed.Tenants[0].Apps, emulator.App{ClientID: otherClient, ClientSecret: "other-secret"})
	for _, c := range change {
		c(&seed)
	}
	w := &world{Emulator: emulatortest.Start(t, seed), t: t}
	w.transport = w.Transport()
	w.restart()
	return w
}

// restart forgets everything that the process knew, and the emulator's counts.
func (w *world) restart() {
	frozen := time.Now()
	w.source = identity.NewFromRequest(identity.Config{Transport: w.transport})
	w.client = vault.New(vault.Config{Transport: w.transport, ShareFor: vault.DefaultShareFor, Now: func() time.Time { return frozen }})
	w.Server.ResetRequests()
}

func spec(mode params.Mode, client string) identity.Spec {
	return identity.Spec{Mode: mode, TenantID: emulatortest.Tenant, ClientID: client,
		Authority: "https://login.microsoftonline.com", Resource: "https://vault.azure.net"}
}

// principal is the credential of a client id and secret.
func principal(t testing.TB, source identity.Source, client, secret string) *identity.Credential {
	t.Helper()
	cred, err := source.Credential(t.Context(), &provider.Request{Secrets: map[string]provider.Sensitive{
		"clientid": provider.Sensitive(client), "clientsecret": provider.Sensitive(secret)}}, spec(params.ServicePrincipal, ""))
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

func (w *world) principal() *identity.Credential {
	w.t.Helper()
	return principal(w.t, w.source, emulatortest.ClientID, emulatortest.ClientSecret)
}

// pod is the credential of one of the pods whose service account the application trusts.
func (w *world) pod(uid string, proof provider.Proof) *identity.Credential {
	w.t.Helper()
	token := w.ServiceAccountToken("app", "reader", "reader-"+uid, uid, emulatortest.Audience, time.Hour)
	return podCredential(w.t, w.source, uid, token, proof)
}

func podCredential(t testing.TB, source identity.Source, uid, token string, proof provider.Proof) *identity.Credential {
	t.Helper()
	cred, err := source.Credential(t.Context(), &provider.Request{
		Pod:    provider.Pod{Namespace: "app", Name: "reader-" + uid, UID: uid, ServiceAccount: "reader"},
		Tokens: map[string]provider.Token{emulatortest.Audience: {Value: provider.Sensitive(token), Proof: proof}},
	}, spec(params.WorkloadIdentity, emulatortest.ClientID))
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

// A fake is Entra ID and a vault without a network or a clock of their own: for tests of time, inside synctest.
type fake struct {
	// answer is asked for every request to the vault. n counts those for the same path, from 1.
	answer func(req *http.Request, n int) (*http.Response, error)
	// grant is asked for every token request; nil grants all.
	grant func(form url.Values) *http.Response

	mu       sync.Mutex
	tokens   int
	times    map[string][]time.Time // of requests, by path
	inFlight int
	most     int
}

func newFake(answer func(req *http.Request, n int) (*http.Response, error)) *fake {
	return &fake{answer: answer, times: map[string][]time.Time{}}
}

// client returns a process that knows nothing yet.
func (f *fake) client(change ...func(*vault.Config)) (*identity.FromRequest, *vault.Client) {
	cfg := vault.Config{Transport: f, ShareFor: vault.DefaultShareFor}
	for _, c := range change {
		c(&cfg)
	}
	return identity.NewFromRequest(identity.Config{Transport: f}), vault.New(cfg)
}

func (f *fake) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.HasSuffix(req.URL.Path, "openid-configuration") {
		const host = "https://login.microsoftonline.com/"
		return respond(req, 200, `{"issuer":"`+host+`t","authorization_endpoint":"`+host+`a","token_endpoint":"`+host+`token"}`), nil
	}
	if req.URL.Host == "login.microsoftonline.com" {
		return f.token(req)
	}
	f.mu.Lock()
	f.times[req.URL.Path] = append(f.times[req.URL.Path], time.Now())
	n := len(f.times[req.URL.Path])
	f.inFlight++
	f.most = max(f.most, f.inFlight)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.inFlight--
		f.mu.Unlock()
	}()
	return f.answer(req, n)
}

func (f *fake) token(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.tokens++
	n := f.tokens
	f.mu.Unlock()
	if f.grant != nil {
		if refusal := f.grant(form); refusal != nil {
			return refusal, nil
		}
	}
	return respond(req, 200, fmt.Sprintf(`{"token_type":"Bearer","expires_in":3599,"access_token":"token-%d"}`, n)), nil
}

// requests returns when requests for a path came; "" is all of them, in no order.
func (f *fake) requests(path string) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if path != "" {
		return f.times[path]
	}
	var all []time.Time
	for _, times := range f.times {
		all = append(all, times...)
	}
	return all
}

func respond(req *http.Request, status int, body string, header ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json; charset=utf-8"}}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		h.Set(name, value)
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: req}
}

const version1 = "0123456789abcdef0123456789abcdef"

// secret answers with a secret whose value is value.
func secret(req *http.Request, value string) *http.Response {
	name := strings.Split(req.URL.Path, "/")[2]
	return respond(req, 200, fmt.Sprintf(`{"value":%q,"id":"https://%s/secrets/%s/%s","attributes":{"enabled":true,"created":1680047957}}`,
		value, req.URL.Host, name, version1))
}

func throttled(req *http.Request, header ...string) *http.Response {
	return respond(req, 429, `{"error":{"code":"Throttled","message":"Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached"}}`, header...)
}
