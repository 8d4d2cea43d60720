package emulator_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
)

// edited returns a token with a change to its claims and the signature it had.
func edited(t *testing.T, token string, change func(map[string]any)) string {
	t.Helper()
	parts := strings.Split(token, ".")
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(b, &claims); err != nil {
		t.Fatal(err)
	}
	change(claims)
	b, err = json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	parts[1] = base64.RawURLEncoding.EncodeToString(b)
	return strings.Join(parts, ".")
}

func TestAccessTokensAreChecked(t *testing.T) {
	a := newAPI(t, func(s *emulator.Seed) {
		s.Tenants = append(s.Tenants, emulator.Tenant{ID: "other-tenant", Apps: []emulator.App{{ClientID: "x", ClientSecret: "y"}}})
		s.Vaults[0].Tenant = emulatortest.Tenant
	})
	a.do("PUT", "/secrets/s", `{"value":"v"}`)
	form := loginForm("x", "y")
	var foreign struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(a.post("https://login.microsoftonline.com/other-tenant/oauth2/v2.0/token", form).Body.Bytes(), &foreign); err != nil {
		t.Fatal(err)
	}
	form = loginForm(emulatortest.ClientID, emulatortest.ClientSecret)
	form.Set("scope", "https://management.azure.com/.default")
	var management struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(a.post(tokenURL, form).Body.Bytes(), &management); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(a.token, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
	for _, row := range []struct{ name, token, want string }{
		{"good", a.token, `"value":"v"`},
		{"another application", edited(t, a.token, func(c map[string]any) { c["appid"] = otherClient }), "AKV10046"},
		{"no signature", none, "AKV10046"},
		{"not a token", "abc", "malformed"},
		{"another tenant", foreign.Token, "AKV10032: Invalid issuer. Expected one of https://sts.windows.net/" + emulatortest.Tenant + "/, found https://sts.windows.net/other-tenant/."},
		{"another resource", management.Token, "AKV10022: Invalid audience. Expected https://vault.azure.net, found: https://management.azure.com."},
	} {
		res := a.send("GET", vaultURL+"/secrets/s?api-version=7.4", "", row.token)
		if !strings.Contains(res.Body.String(), row.want) || (res.Code == 200) != (row.name == "good") || strings.Contains(res.Body.String(), row.token) {
			t.Errorf("%s: %d %s", row.name, res.Code, res.Body)
		}
	}
	a.clock = a.clock.Add(3599 * time.Second)
	if res := a.do("GET", "/secrets/s", ""); res.Code != 401 {
		t.Errorf("expired: %d", res.Code)
	}
}

// service is a token of an emulated cluster.
func (a *api) service(url, ns string, aud string, life time.Duration) string {
	a.t.Helper()
	token, err := a.Issuer(url).Token(emulator.ServiceAccount{Namespace: ns, Name: "reader", PodName: "p", PodUID: "u"}, []string{aud}, life)
	if err != nil {
		a.t.Fatal(err)
	}
	return token
}

// forged is a token that is right but for the key, which another cluster of the same name has.
func (a *api) forged() string {
	a.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		a.t.Fatal(err)
	}
	is, err := emulator.New(emulator.Options{Now: func() time.Time { return a.clock }}).AddIssuer(emulatortest.Issuer, "", key)
	if err != nil {
		a.t.Fatal(err)
	}
	token, err := is.Token(emulator.ServiceAccount{Namespace: "app", Name: "reader"}, []string{emulatortest.Audience}, time.Hour)
	if err != nil {
		a.t.Fatal(err)
	}
	return token
}

func TestTokenEndpoint(t *testing.T) {
	a := newAPI(t, func(s *emulator.Seed) {
		s.Issuers = append(s.Issuers, emulator.IssuerSeed{URL: "https://oidc.other.example/", Algorithm: "RS256"})
	})
	service := a.service
	good := service(emulatortest.Issuer, "app", emulatortest.Audience, time.Hour)
	forged := a.forged()
	assertion := func(token string) func(url.Values) {
		return func(f url.Values) { f.Del("client_secret"); f.Set("client_assertion", token) }
	}
	set := func(name, value string) func(url.Values) { return func(f url.Values) { f.Set(name, value) } }
	for _, row := range []struct {
		name   string
		change func(url.Values)
		status int
		want   string
	}{
		{"secret", func(url.Values) {}, 200, `"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"`},
		{"assertion", assertion(good), 200, `"access_token":"`},
		{"assertion with a newline", assertion(good + "\n"), 200, `"access_token":"`},
		{"wrong secret", set("client_secret", "wrong"), 401, `"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.`},
		{"unknown application", set("client_id", "nobody"), 400, `"unauthorized_client","error_description":"AADSTS700016: Application with identifier 'nobody'`},
		{"no credential", func(f url.Values) { f.Del("client_secret") }, 401, "AADSTS7000218"},
		{"no scope", func(f url.Values) { f.Del("scope") }, 400, "AADSTS900144"},
		{"scope without default", set("scope", "https://vault.azure.net"), 400, `"invalid_scope","error_description":"AADSTS70011`},
		{"unknown resource", set("scope", "https://other.example/.default"), 400, `"invalid_resource","error_description":"AADSTS500011`},
		{"resource of another cloud", set("scope", "https://vault.azure.cn/.default"), 400, "AADSTS500011"},
		{"grant", set("grant_type", "password"), 400, "AADSTS70003"},
		{"issuer", assertion(service("https://oidc.other.example/", "app", emulatortest.Audience, time.Hour)), 401, "AADSTS700211"},
		{"audience", assertion(service(emulatortest.Issuer, "app", "api://x", time.Hour)), 401, "AADSTS700212"},
		{"subject", assertion(service(emulatortest.Issuer, "other", emulatortest.Audience, time.Hour)), 401, "AADSTS700213"},
		{"expired", assertion(service(emulatortest.Issuer, "app", emulatortest.Audience, -time.Hour)), 401, "AADSTS700024"},
		{"forged", assertion(forged), 401, "AADSTS700027"},
		{"edited", assertion(edited(t, good, func(c map[string]any) { c["exp"] = 9e9 })), 401, "AADSTS700027"},
		{"not a token", assertion("a.b"), 401, "AADSTS50027"},
	} {
		form := loginForm(emulatortest.ClientID, emulatortest.ClientSecret)
		row.change(form)
		res := a.post(tokenURL, form)
		if res.Code != row.status || !strings.Contains(res.Body.String(), row.want) {
			t.Errorf("%s: %d %s", row.name, res.Code, res.Body)
		}
		if s := form.Get("client_secret") + form.Get("client_assertion"); s != "" && len(s) > 3 && strings.Contains(res.Body.String(), s) {
			t.Errorf("%s: the answer holds the credential", row.name)
		}
	}
	if res := a.post("https://login.microsoftonline.com/nowhere/oauth2/v2.0/token", loginForm("a", "b")); res.Code != 400 || !strings.Contains(res.Body.String(), "AADSTS90002: Tenant 'nowhere' not found.") {
		t.Errorf("unknown tenant: %d %s", res.Code, res.Body)
	}
}

func TestIssuerDocuments(t *testing.T) {
	a := newAPI(t, nil)
	var doc struct {
		Issuer string
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(a.send("GET", emulatortest.Issuer+".well-known/openid-configuration", "", "").Body.Bytes(), &doc); err != nil || doc.Issuer != emulatortest.Issuer {
		t.Fatalf("%+v, %v", doc, err)
	}
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(a.send("GET", doc.JWKS, "", "").Body.Bytes(), &set); err != nil || len(set.Keys) != 1 || set.Keys[0]["alg"] != "ES256" {
		t.Fatalf("%+v, %v", set, err)
	}
	token, err := a.Issuer(emulatortest.Issuer).Token(emulator.ServiceAccount{Namespace: "n", Name: "s", PodName: "p", PodUID: "u"}, []string{"aud"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	edited(t, token, func(c map[string]any) {
		k := c["kubernetes.io"].(map[string]any)
		if k["namespace"] != "n" || k["pod"].(map[string]any)["uid"] != "u" || k["serviceaccount"].(map[string]any)["name"] != "s" || c["sub"] != "system:serviceaccount:n:s" {
			t.Errorf("claims %v", c)
		}
	})
}
