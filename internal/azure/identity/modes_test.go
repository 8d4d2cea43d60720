package identity_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"keymount/internal/azure/identity"
	"keymount/internal/azure/params"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
)

// Each row is a good request with one change, the kind of its error and what its text contains.
func TestRequestsThatBringNoIdentity(t *testing.T) {
	const mode = "failed to build auth config for mode None: "
	source := identity.NewFromRequest(identity.Config{})
	good := func() (*provider.Request, identity.Spec) { return secrets("client", "secret"), principalSpec() }
	workload := func(change func(*provider.Request)) func(*provider.Request, *identity.Spec) {
		return func(req *provider.Request, spec *identity.Spec) {
			*spec = workloadSpec()
			*req = *with(reader("uid-1"), plainToken(t, nil), provider.ProvenByRequest)
			change(req)
		}
	}
	for _, tc := range []struct {
		name   string
		change func(*provider.Request, *identity.Spec)
		kind   provider.Kind
		want   string
		row    string
	}{
		{"no secret", func(r *provider.Request, _ *identity.Spec) { r.Secrets = nil },
			provider.Invalid, mode + "failed to get credentials, nodePublishSecretRef secret is not set", ""},
		{"no client id", func(r *provider.Request, _ *identity.Spec) { delete(r.Secrets, "clientid") },
			provider.Invalid, mode + "could not find clientid in secrets", ""},
		{"an empty client id", func(r *provider.Request, _ *identity.Spec) { r.Secrets["clientid"] = " \n" },
			provider.Invalid, mode + "could not find clientid in secrets", ""},
		{"a client id that is none", func(r *provider.Request, _ *identity.Spec) { r.Secrets["clientid"] = "a\nb" },
			provider.Invalid, "is not a client id", ""},
		{"no client secret", func(r *provider.Request, _ *identity.Spec) { delete(r.Secrets, "clientsecret") },
			provider.Invalid, mode + "could not find clientsecret in secrets", ""},
		{"no tokens; a secret does not stand in", workload(func(r *provider.Request) { r.Tokens = nil; r.Secrets = secrets("a", "b").Secrets }),
			provider.Invalid, mode + "failed to parse workload identity tokens, error: service account tokens not found", "1.4/serviceAccount.tokens"},
		{"no token for the audience", workload(func(r *provider.Request) {
			r.Tokens = map[string]provider.Token{"other": r.Tokens[emulatortest.Audience]}
		}),
			provider.Invalid, "token for audience api://AzureADTokenExchange not found", "1.4/serviceAccount.tokens"},
		{"an empty token", workload(func(r *provider.Request) { r.Tokens[emulatortest.Audience] = provider.Token{Value: "\n"} }),
			provider.Invalid, "token for audience api://AzureADTokenExchange not found", "1.4/serviceAccount.tokens"},
		{"a token of 17 KiB", workload(func(r *provider.Request) {
			r.Tokens[emulatortest.Audience] = provider.Token{Value: provider.Sensitive(strings.Repeat("x", 17<<10))}
		}), provider.Invalid, "longer than 16384 bytes", ""},
		{"a proven token that is none", workload(func(r *provider.Request) {
			r.Tokens[emulatortest.Audience] = provider.Token{Value: "x", Proof: provider.ProvenByRequest}
		}), provider.Denied, "not a JSON web token", ""},
		{"a proven token of another pod", workload(func(r *provider.Request) { r.Pod.UID = "uid-2" }), provider.Denied, "another pod", ""},
		{"a proven token of another account", workload(func(r *provider.Request) { r.Pod.ServiceAccount = "writer" }), provider.Denied, "another service account", ""},
		{"a proven token of another namespace", workload(func(r *provider.Request) { r.Pod.Namespace = "other" }), provider.Denied, "another service account", ""},
		{"a proven token and no pod", workload(func(r *provider.Request) { r.Pod = provider.Pod{} }), provider.Denied, "does not say which pod", ""},
		{"a proven token for another audience", workload(func(r *provider.Request) {
			*r = *with(reader("uid-1"), plainToken(t, map[string]any{"aud": "other"}), provider.ProvenByRequest)
		}), provider.Denied, "another audience", ""},
		{"a tenant that is none", func(_ *provider.Request, s *identity.Spec) { s.TenantID = "a/../b" },
			provider.Invalid, "invalid tenantID. You can locate your tenantID by", "1.4/tenantID-syntax"},
		{"a tenant of dots", func(_ *provider.Request, s *identity.Spec) { s.TenantID = ".." }, provider.Invalid, "invalid tenantID", ""},
		{"a plain authority", func(_ *provider.Request, s *identity.Spec) { s.Authority = "http://login.example" }, provider.Invalid, "not https", ""},
		{"an authority with a query", func(_ *provider.Request, s *identity.Spec) { s.Authority += "/?x=y" }, provider.Invalid, "not https", ""},
		{"VM managed identity", func(_ *provider.Request, s *identity.Spec) { s.Mode = params.ManagedIdentity },
			provider.Invalid, "identity mode VM managed identity is not supported", ""},
		{"pod identity", func(_ *provider.Request, s *identity.Spec) { s.Mode = params.PodIdentity },
			provider.Invalid, "identity mode pod identity is not supported", ""},
		{"identity binding", func(_ *provider.Request, s *identity.Spec) { s.Mode = params.IdentityBinding },
			provider.Invalid, "this version supports workload identity (clientID) and a service principal", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.row != "" {
				t.Attr("conformance", tc.row)
			}
			req, spec := good()
			tc.change(req, &spec)
			cred, err := source.Credential(t.Context(), req, spec)
			if cred != nil || err == nil {
				t.Fatalf("accepted as %v, %v", cred, err)
			}
			if kind := provider.KindOf(err); kind != tc.kind || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("kind %v, want %v; text %q, want it to contain %q", kind, tc.kind, err, tc.want)
			}
		})
	}
}

// A Secret's keys are found in any case, and always the same one.
func TestServicePrincipalKeysInAnyCase(t *testing.T) {
	source := identity.NewFromRequest(identity.Config{})
	key := func(secrets map[string]provider.Sensitive) identity.Key {
		cred, err := source.Credential(t.Context(), &provider.Request{Secrets: secrets}, principalSpec())
		if err != nil {
			t.Fatal(err)
		}
		k, err := cred.Key(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	want := key(map[string]provider.Sensitive{"clientid": "c", "clientsecret": "s"})
	for i := 0; i < 20; i++ {
		if got := key(map[string]provider.Sensitive{"ClientID": "c\n", "CLIENTSECRET": "s", "clientSecret": "other"}); got != want {
			t.Fatalf("keys in another case give %v, want %v", got, want)
		}
		if got := key(map[string]provider.Sensitive{"clientid": "c", "CLIENTID": "d", "clientsecret": "s"}); got != want {
			t.Fatalf("the lower-case key does not win: %v", got)
		}
	}
}

// plainToken has the claims of a pod's token, with changes, and a signature that nobody checked.
func plainToken(t testing.TB, changes map[string]any) string {
	t.Helper()
	claims := map[string]any{
		"iss": "https://issuer.example", "sub": "system:serviceaccount:app:reader", "aud": []string{emulatortest.Audience},
		"exp": time.Now().Add(time.Hour).Unix(), "kubernetes.io": map[string]any{"pod": map[string]any{"name": "p", "uid": "uid-1"}},
	}
	for k, v := range changes {
		claims[k] = v
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return encode(`{"alg":"RS256"}`) + "." + encode(string(payload)) + "." + encode("signature")
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
