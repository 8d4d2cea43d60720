package emulator_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
)

// FuzzServe: no request makes the emulator panic or answer 500, and no answer to a request without a good token holds a stored value.
func FuzzServe(f *testing.F) {
	server := emulator.New(emulator.Options{SigningKey: emulatortest.SigningKey()})
	seed := emulatortest.DefaultSeed("myvault")
	const value = "the-stored-value"
	seed.Vaults[0].Secrets = []emulator.Secret{{Name: "s", SecretVersion: emulator.SecretVersion{Value: value}}}
	seed.Vaults[0].Certificates = []emulator.Certificate{{Name: "c", KeyType: "EC"}}
	if err := server.Load(seed); err != nil {
		f.Fatal(err)
	}
	login := httptest.NewRecorder()
	server.ServeHTTP(login, httptest.NewRequest(http.MethodPost, tokenURL, strings.NewReader(loginForm(emulatortest.ClientID, emulatortest.ClientSecret).Encode())))
	_, rest, _ := strings.Cut(login.Body.String(), `"access_token":"`)
	token, _, _ := strings.Cut(rest, `"`)

	f.Add("GET", "myvault.vault.azure.net", "/secrets/s/", "api-version=7.4", "", true)
	f.Add("GET", "myvault.vault.azure.net", "/secrets", "api-version=7.4&maxresults=1&$skiptoken=eyJ9", "", true)
	f.Add("PUT", "myvault.vault.azure.net", "/secrets/t", "api-version=7.4", `{"value":"v","attributes":{"nbf":1}}`, true)
	f.Add("PATCH", "myvault.vault.azure.net", "/certificates/c/policy", "api-version=7.4", `{"key_props":{"kty":"EC"}}`, true)
	f.Add("POST", "myvault.vault.azure.net", "/certificates/d/create", "api-version=7.4", `{"policy":{"key_props":{"kty":"EC"},"x509_props":{"subject":"CN=x","ekus":["1.2.3"]}}}`, true)
	f.Add("POST", "myvault.vault.azure.net", "/certificates/d/import", "api-version=7.4", `{"value":"MIIB","pwd":"x"}`, true)
	f.Add("POST", "myvault.vault.azure.net", "/certificates/d/pending/merge", "api-version=7.4", `{"x5c":["AAAA"]}`, true)
	f.Add("PUT", "myvault.vault.azure.net", "/keys/k", "api-version=7.4", `{"key":{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}}`, true)
	f.Add("POST", "myvault.vault.azure.net", "/deletedsecrets/s/recover", "api-version=7.4", "", true)
	f.Add("GET", "myvault.vault.azure.net", "/secrets/s%2f..", "api-version=7.4", "", false)
	f.Add("POST", "login.microsoftonline.com", "/"+emulatortest.Tenant+"/oauth2/v2.0/token", "", "grant_type=client_credentials&client_id="+emulatortest.ClientID+"&scope=a/.default&client_assertion=e30.e30.AA", false)
	f.Add("GET", "login.microsoftonline.com", "/common/discovery/instance", "authorization_endpoint=https://login.microsoftonline.com/x", "", false)
	f.Add("GET", "oidc.cluster.example", "/demo/openid/v1/jwks", "", "", false)

	f.Fuzz(func(t *testing.T, method, host, path, query, body string, auth bool) {
		if strings.Contains(body, "RSA") {
			return // an RSA key for each input would be all that is tested
		}
		req, err := http.NewRequest(method, "https://myvault.vault.azure.net", strings.NewReader(body))
		if err != nil {
			return // not a method
		}
		req.Host, req.URL.Path, req.URL.RawQuery = host, path, query
		if !strings.HasPrefix(path, "/") {
			req.URL.Path = "/" + path
		}
		if auth {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res := httptest.NewRecorder()
		server.ServeHTTP(res, req)
		if res.Code >= 500 {
			t.Errorf("%s %s%s?%s %q: %d %s", method, host, path, query, body, res.Code, res.Body)
		}
		if !auth && strings.Contains(res.Body.String(), value) {
			t.Errorf("%s %s%s?%s: the value is shown to nobody in particular", method, host, path, query)
		}
	})
}
