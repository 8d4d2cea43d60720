package identity_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keymount/internal/azure/identity"
	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
)

// token asks for a token as the request's credential.
func token(t *testing.T, source identity.Source, req *provider.Request, spec identity.Spec) (identity.AccessToken, error) {
	t.Helper()
	cred, err := source.Credential(t.Context(), req, spec)
	if err != nil {
		t.Fatal(err)
	}
	return cred.Token(t.Context())
}

// Two requests make an identity, one every further identity of the tenant, and instance discovery none.
func TestRequestsPerIdentity(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		if _, err := token(t, w.source, secrets(emulatortest.ClientID, emulatortest.ClientSecret), principalSpec()); err != nil {
			t.Fatal(err)
		}
		for _, uid := range []string{"uid-1", "uid-2", "uid-3"} {
			pod := reader(uid)
			if _, err := token(t, w.source, with(pod, w.tokenOf(pod, time.Hour)+"\n", provider.ProvenByCSIDriver), workloadSpec()); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := w.Requests()
	if n[emulator.KindToken] != 2 || n[emulator.KindOpenID] != 1 || n.Total() != 3 {
		t.Errorf("requests are %v, want one discovery document and a token for each of two identities", n)
	}
}

// What Entra ID refuses says why, in words that are the same each time, and repeats no credential.
func TestRefusalsByEntraID(t *testing.T) {
	w := newWorld(t)
	pod := reader("uid-1")
	fits := func(token string) *provider.Request { return with(pod, token, provider.Unproven) }
	for _, tc := range []struct {
		name   string
		change func(req **provider.Request, spec *identity.Spec)
		kind   provider.Kind
		want   []string
	}{
		{"wrong secret", func(r **provider.Request, s *identity.Spec) {
			*r, *s = secrets(emulatortest.ClientID, "wrong-secret"), principalSpec()
		}, provider.Denied, []string{"AADSTS7000215", "not its id"}},
		{"no such application", func(r **provider.Request, s *identity.Spec) {
			*r, *s = secrets("44444444-4444-4444-8444-444444444444", "s"), principalSpec()
		}, provider.Denied, []string{"AADSTS700016", "compare clientID and tenantID"}},
		{"no such tenant", func(_ **provider.Request, s *identity.Spec) { s.TenantID = "55555555-5555-4555-8555-555555555555" },
			provider.Invalid, []string{"AADSTS90002", "correct tenantID"}},
		{"another subject", func(r **provider.Request, _ *identity.Spec) {
			*r = with(intruder(), w.tokenOf(intruder(), time.Hour), provider.ProvenByRequest)
		}, provider.Denied, []string{"AADSTS7002", `subject "system:serviceaccount:elsewhere:intruder"`, "federated credential"}},
		{"another issuer", func(r **provider.Request, _ *identity.Spec) {
			*r = fits(w.sign(t, otherIssuer, otherIssuer, pod))
		}, provider.Denied, []string{"AADSTS7002", `issuer "` + otherIssuer + `"`}},
		{"expired", func(r **provider.Request, _ *identity.Spec) { *r = fits(w.tokenOf(pod, -time.Hour)) },
			provider.Denied, []string{"AADSTS700024", "clocks"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, spec := fits(w.tokenOf(pod, time.Hour)), workloadSpec()
			tc.change(&req, &spec)
			_, err := token(t, w.source, req, spec)
			_, again := token(t, w.source, req, spec)
			if err == nil || again == nil || err.Error() != again.Error() {
				t.Fatalf("the text differs from time to time:\n%v\n%v", err, again)
			}
			if kind := provider.KindOf(err); kind != tc.kind {
				t.Errorf("kind %v, want %v: %v", kind, tc.kind, err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not contain %q", err, want)
				}
			}
			assertQuiet(t, err, req)
		})
	}
}

// assertQuiet checks that an error holds no credential and no ids that never repeat.
func assertQuiet(t *testing.T, err error, req *provider.Request) {
	t.Helper()
	text := err.Error()
	bad := []string{"Trace ID", "Correlation ID", "Timestamp", "\n", "\r", "eyJ"}
	if secret := req.Secrets["clientsecret"]; len(secret) > 1 {
		bad = append(bad, secret.Reveal())
	}
	for _, b := range bad {
		if strings.Contains(text, b) {
			t.Errorf("%q contains %q", text, b)
		}
	}
}

// roundTrip is a transport without a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// respond makes an answer. Header lines are "Name: value".
func respond(req *http.Request, status int, body string, header ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json"}}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		h.Set(name, value)
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: req}
}

const openID = `{"issuer":"https://login.microsoftonline.com/t/v2.0","authorization_endpoint":"https://login.microsoftonline.com/a","token_endpoint":"https://login.microsoftonline.com/t/oauth2/v2.0/token"}`

// Answers that no emulator needs to give.
func TestOddAnswersOfEntraID(t *testing.T) {
	const accessToken = "the-access-token-that-must-not-be-printed"
	description := func(code string) string {
		return `{"error":"invalid_client","error_description":"AADSTS` + code + `: Some text. Trace ID: 1-2 Correlation ID: 3-4 Timestamp: 2026-01-01 00:00:00Z"}`
	}
	for _, tc := range []struct {
		name      string
		discovery string // "" is a good one
		status    int
		body      string
		header    string
		err       error
		kind      provider.Kind
		want      string
		tries     int
		after     time.Duration
	}{
		{name: "expired secret", status: 401, body: description("7000222"), kind: provider.Denied, want: "AADSTS7000222: Some text. (the client secret has expired", tries: 1},
		{name: "disabled application", status: 401, body: description("7000112"), kind: provider.Denied, want: "enable it", tries: 1},
		{name: "unknown resource", status: 400, body: description("500011"), kind: provider.Invalid, want: "https://vault.azure.net", tries: 1},
		{name: "another cloud", status: 400, body: description("900382"), kind: provider.Invalid, want: "cloudName", tries: 1},
		{name: "a token that is none", status: 400, body: description("50027"), kind: provider.Denied, want: "service account token is none", tries: 1},
		{name: "a proxy that does not connect", err: &identity.ProxyRefusal{Host: "login.microsoftonline.com:443", Status: "403 Forbidden", Code: 403}, kind: provider.Unavailable,
			want: "the proxy does not connect to login.microsoftonline.com:443: 403 Forbidden", tries: 4},
		{name: "a code nobody knows", status: 400, body: description("99"), kind: provider.Denied, want: "AADSTS99: Some text.", tries: 1},
		{name: "throttled", status: 429, header: "Retry-After: 7", body: description("90055"), kind: provider.Throttled, want: "AADSTS90055", tries: 4, after: 7 * time.Second},
		{name: "broken", status: 503, body: "down", kind: provider.Unavailable, want: "HTTP 503", tries: 4},
		{name: "a proxy's page", status: 407, body: "<html>who are you", kind: provider.Unavailable, want: "check for a proxy", tries: 1},
		{name: "a redirect", status: 302, header: "Location: https://elsewhere.example/", kind: provider.Unavailable, want: "HTTP 302", tries: 1},
		{name: "a success that is no JSON", status: 200, body: `{"access_token":"` + accessToken, kind: provider.Internal, want: "not one of Entra ID's", tries: 1},
		{name: "a success without expiry", status: 200, body: `{"token_type":"Bearer","access_token":"` + accessToken + `"}`, kind: provider.Internal, want: "not one of Entra ID's", tries: 1},
		{name: "a success of 2 MiB", status: 200, body: `{"access_token":"` + strings.Repeat("x", 2<<20), kind: provider.Internal, want: "not one of Entra ID's", tries: 1},
		{name: "a token endpoint without TLS", discovery: strings.Replace(openID, `"https://login.microsoftonline.com/t/oauth2`, `"http://login.microsoftonline.com/t/oauth2`, 1),
			status: 200, kind: provider.Unavailable, want: "not https", tries: 0},
		{name: "no such host", err: &net.DNSError{Err: "no such host", Name: "login.microsoftonline.com", IsNotFound: true}, kind: provider.Unavailable,
			want: "no address for host login.microsoftonline.com", tries: 4},
		{name: "a certificate of somebody's proxy", err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, kind: provider.Unavailable,
			want: "the server's certificate is not trusted: x509: certificate signed by unknown authority (" + identity.Untrusted + ")", tries: 4},
		{name: "refused", err: &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}, kind: provider.Unavailable, want: "connecting failed: connection refused", tries: 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				transport := roundTrip(func(req *http.Request) (*http.Response, error) {
					if strings.HasSuffix(req.URL.Path, "openid-configuration") {
						if tc.discovery != "" {
							return respond(req, 200, tc.discovery), nil
						}
						return respond(req, 200, openID), nil
					}
					tries++
					if tc.err != nil {
						return nil, tc.err
					}
					return respond(req, tc.status, tc.body, tc.header), nil
				})
				source := identity.NewFromRequest(identity.Config{Transport: transport})
				req := secrets("client", "the-client-secret")
				got, err := token(t, source, req, principalSpec())
				if err == nil {
					t.Fatalf("accepted: %v", got)
				}
				var e *provider.Error
				if !errors.As(err, &e) || e.Kind != tc.kind || e.RetryAfter != tc.after || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%#v, want kind %v, after %v, text %q", err, tc.kind, tc.after, tc.want)
				}
				if tries != tc.tries {
					t.Errorf("%d tries, want %d", tries, tc.tries)
				}
				if strings.Contains(err.Error(), accessToken) {
					t.Errorf("the error repeats the token: %v", err)
				}
				assertQuiet(t, err, req)
			})
		})
	}
}

func TestHangingEntraID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := roundTrip(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		source := identity.NewFromRequest(identity.Config{Transport: transport})
		start := time.Now()
		_, err := token(t, source, secrets("client", "secret"), principalSpec())
		if provider.KindOf(err) != provider.Unavailable || !strings.Contains(err.Error(), "no answer in time") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took > time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

// What is sent: the assertion trimmed, only what the grant needs, and no claims that ask for tokens of a day.
func TestTokenRequestForm(t *testing.T) {
	forms := make(chan url.Values, 1)
	transport := roundTrip(func(req *http.Request) (*http.Response, error) {
		if strings.HasSuffix(req.URL.Path, "openid-configuration") {
			return respond(req, 200, openID), nil
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, err
		}
		forms <- form
		return respond(req, 200, `{"token_type":"Bearer","expires_in":3599,"access_token":"a"}`), nil
	})
	source := identity.NewFromRequest(identity.Config{Transport: transport})
	assertion := plainToken(t, nil)
	spec := workloadSpec()
	spec.Authority, spec.Resource = spec.Authority+"/", spec.Resource+"/"
	got, err := token(t, source, with(reader("uid-1"), " "+assertion+"\n", provider.ProvenByRequest), spec)
	if err != nil || got.Value != "a" || time.Until(got.Expires) < 59*time.Minute {
		t.Fatalf("%v, %v", got, err)
	}
	form := <-forms
	for name, want := range map[string]string{
		"client_assertion": assertion, "client_id": emulatortest.ClientID, "grant_type": "client_credentials", "claims": "",
		"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
	} {
		if form.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, form.Get(name), want)
		}
	}
	if scope := strings.Fields(form.Get("scope")); len(scope) == 0 || scope[0] != "https://vault.azure.net/.default" {
		t.Errorf("scope is %q", form.Get("scope"))
	}
}

func TestDefaultChain(t *testing.T) {
	w := newWorld(t)
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential") // else it looks for programs and metadata services
	source := identity.NewDefaultChain(identity.Config{Transport: w.Transport()})
	_, err := token(t, source, &provider.Request{}, principalSpec())
	if provider.KindOf(err) != provider.Denied || !strings.Contains(err.Error(), "az login") {
		t.Errorf("with nobody signed in: %v", err)
	}
	t.Setenv("AZURE_TENANT_ID", emulatortest.Tenant)
	t.Setenv("AZURE_CLIENT_ID", emulatortest.ClientID)
	t.Setenv("AZURE_CLIENT_SECRET", emulatortest.ClientSecret)
	for range 3 {
		cred, err := source.Credential(t.Context(), &provider.Request{}, workloadSpec())
		if err != nil {
			t.Fatal(err)
		}
		s, err := w.client.Secret(t.Context(), cred, vaultURL, "treasure", "")
		if err != nil || string(s.Value) != treasure {
			t.Fatalf("%v, %v", s, err)
		}
	}
	if n := w.Requests(); n[emulator.KindToken] != 1 {
		t.Errorf("requests are %v, want one for a token", n)
	}
	t.Setenv("AZURE_CLIENT_SECRET", "wrong")
	fresh := identity.NewDefaultChain(identity.Config{Transport: w.Transport()})
	if _, err := token(t, fresh, &provider.Request{}, principalSpec()); provider.KindOf(err) != provider.Denied || !strings.Contains(err.Error(), "AADSTS7000215") {
		t.Errorf("with a wrong secret: %v", err)
	}
}
