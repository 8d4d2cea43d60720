package emulator_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
)

// An api is a handler with a token for it, without a network.
type api struct {
	*emulator.Server
	t     *testing.T
	clock time.Time
	token string
}

const otherClient = "33333333-3333-4333-8333-333333333333"

func newAPI(t *testing.T, change func(*emulator.Seed)) *api {
	t.Helper()
	a := &api{t: t, clock: time.Unix(1_800_000_000, 0)}
	a.Server = emulator.New(emulator.Options{Now: func() time.Time { return a.clock }, SigningKey: emulatortest.SigningKey()})
	seed := emulatortest.DefaultSeed("myvault")
	seed.Tenants[0].Apps = append(seed.Tenants[0].Apps, emulator.App{ClientID: otherClient, ClientSecret: "other", ObjectID: "oid-of-other"})
	if change != nil {
		change(&seed)
	}
	if err := a.Load(seed); err != nil {
		t.Fatal(err)
	}
	a.token = a.login(emulatortest.ClientID, emulatortest.ClientSecret)
	return a
}

func (a *api) post(target string, form url.Values) *httptest.ResponseRecorder {
	return a.send(http.MethodPost, target, form.Encode(), "")
}

func (a *api) login(id, secret string) string {
	a.t.Helper()
	res := a.post(tokenURL, loginForm(id, secret))
	var out struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(res.Body.Bytes(), &out); err != nil || out.Token == "" {
		a.t.Fatalf("getting a token: %s", res.Body)
	}
	return out.Token
}

const tokenURL = "https://login.microsoftonline.com/" + emulatortest.Tenant + "/oauth2/v2.0/token"

func loginForm(id, secret string) url.Values {
	return url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}, "scope": {"https://vault.azure.net/.default openid offline_access profile"}}
}

func (a *api) send(method, target, body, token string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, target, strings.NewReader(body))
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res := httptest.NewRecorder()
	a.ServeHTTP(res, req)
	return res
}

// do sends a request to the vault with the default token; path has no api-version.
func (a *api) do(method, path, body string) *httptest.ResponseRecorder {
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	return a.send(method, vaultURL+path+sep+"api-version=7.4", body, a.token)
}

// want compares a body with a text in which V stands for a version id.
func (a *api) want(res *httptest.ResponseRecorder, status int, body string) {
	a.t.Helper()
	got := regexp.MustCompile(`\b[0-9a-f]{32}\b`).ReplaceAllString(res.Body.String(), "V")
	if res.Code != status || got != body {
		a.t.Errorf("got  %d %s\nwant %d %s", res.Code, got, status, body)
	}
}

func TestBytes(t *testing.T) {
	a := newAPI(t, nil)
	const attrs = `"created":1800000000,"updated":1800000000,"recoveryLevel":"CustomizedRecoverable+Purgeable","recoverableDays":7`
	const id = `"id":"https://myvault.vault.azure.net/secrets/`
	a.want(a.do("PUT", "/secrets/plain", `{"value":"<&>"}`), 200, `{"value":"<&>",`+id+`plain/V","attributes":{"enabled":true,`+attrs+`}}`)
	a.want(a.do("GET", "/secrets/plain/", ""), 200, `{"value":"<&>",`+id+`plain/V","attributes":{"enabled":true,`+attrs+`}}`)
	a.want(a.do("PUT", "/secrets/Full", `{"value":"v","contentType":"c","tags":{"a":"b"},"attributes":{"nbf":1,"exp":2}}`), 200,
		`{"value":"v","contentType":"c",`+id+`Full/V","attributes":{"enabled":true,"nbf":1,"exp":2,`+attrs+`},"tags":{"a":"b"}}`)
	a.want(a.do("GET", "/secrets/FULL", ""), 200, `{"value":"v","contentType":"c",`+id+`Full/V","attributes":{"enabled":true,"nbf":1,"exp":2,`+attrs+`},"tags":{"a":"b"}}`)
	if _, err := a.PutSecret("myvault", emulator.Secret{Name: "backed", SecretVersion: emulator.SecretVersion{Value: "MII=", ContentType: "application/x-pkcs12", Managed: true, KID: "keys/backed/V"}}); err != nil {
		t.Fatal(err)
	}
	a.want(a.do("GET", "/secrets/backed", ""), 200, `{"value":"MII=","contentType":"application/x-pkcs12",`+id+`backed/V","managed":true,"attributes":{"enabled":true,`+attrs+`},"tags":{},"kid":"https://myvault.vault.azure.net/keys/backed/V"}`)
	a.want(a.do("GET", "/secrets/plain/versions", ""), 200, `{"value":[{`+id+`plain/V","attributes":{"enabled":true,`+attrs+`}}],"nextLink":null}`)
	a.want(a.do("GET", "/secrets/none/versions", ""), 200, `{"value":[],"nextLink":null}`)
	a.want(a.do("DELETE", "/secrets/plain", ""), 200, `{"recoveryId":"https://myvault.vault.azure.net/deletedsecrets/plain","deletedDate":1800000000,"scheduledPurgeDate":1800604800,`+id+`plain/V","attributes":{"enabled":true,`+attrs+`}}`)
	a.want(a.do("DELETE", "/deletedsecrets/plain", ""), 204, "")

	disabled := false
	if _, err := a.PutSecret("myvault", emulator.Secret{Name: "off", SecretVersion: emulator.SecretVersion{Value: "v", Enabled: &disabled}}); err != nil {
		t.Fatal(err)
	}
	res := a.do("GET", "/secrets/off", "")
	a.want(res, 403, `{"error":{"code":"Forbidden","message":"Operation get is not allowed on a disabled secret.","innererror":{"code":"SecretDisabled"}}}`)
	if res.Header().Get("Content-Length") != "132" {
		t.Errorf("a disabled secret's refusal has %s bytes, the recorded one 132", res.Header().Get("Content-Length"))
	}
	res = a.send("GET", vaultURL+"/secrets/off?api-version=7.4", "", "")
	a.want(res, 401, `{"error":{"code":"Unauthorized","message":"AKV10000: Request is missing a Bearer or PoP token."}}`)
	if h := res.Header(); h.Get("Content-Length") != "97" || h.Get("WWW-Authenticate") != `Bearer authorization="https://login.microsoftonline.com/`+emulatortest.Tenant+`", resource="https://vault.azure.net"` {
		t.Errorf("challenge: %v", h)
	}
}

func TestAPIVersion(t *testing.T) {
	a := newAPI(t, nil)
	a.do("PUT", "/secrets/s", `{"value":"v"}`)
	for _, row := range []struct {
		query, contains string
		status          int
	}{
		{"", "api-version must be specified", 400},
		{"?api-version=6.9", "The specified version (6.9) is not recognized.", 400},
		{"?api-version=7.0", `"recoveryLevel":"CustomizedRecoverable+Purgeable"}`, 200},
		{"?api-version=2026-04-01", `"recoverableDays":7}`, 200},
	} {
		res := a.send("GET", vaultURL+"/secrets/s"+row.query, "", a.token)
		if res.Code != row.status || !strings.Contains(res.Body.String(), row.contains) {
			t.Errorf("%q: %d %s", row.query, res.Code, res.Body)
		}
	}
}

func TestPaging(t *testing.T) {
	a := newAPI(t, nil)
	for _, name := range []string{"b", "A", "c", "a-1"} {
		a.do("PUT", "/secrets/"+name, `{"value":"v"}`)
	}
	var order []string
	links := 0
	for next := vaultURL + "/secrets?api-version=7.4&maxresults=1"; next != ""; links++ {
		var page struct {
			Value    []struct{ ID string }
			NextLink *string
		}
		res := a.send("GET", next, "", a.token)
		if err := json.Unmarshal(res.Body.Bytes(), &page); err != nil || len(page.Value) != 1 {
			t.Fatalf("%s: %s", next, res.Body)
		}
		order = append(order, page.Value[0].ID[strings.LastIndex(page.Value[0].ID, "/")+1:])
		next = ""
		if page.NextLink != nil {
			next = *page.NextLink
			token := regexp.MustCompile(`^https://myvault\.vault\.azure\.net:443/secrets\?api-version=7\.4&\$skiptoken=([^&]+)&maxresults=1$`).FindStringSubmatch(next)
			if token == nil {
				t.Fatalf("link %s is not of the service's form", next)
			}
			b, err := base64.RawURLEncoding.DecodeString(token[1])
			if err != nil || !regexp.MustCompile(`^\{"NextMarker":"2!\d+![A-Za-z0-9+/=]+","TargetLocation":0\}$`).Match(b) {
				t.Errorf("skip token %s: %v", b, err)
			}
		}
	}
	if got := strings.Join(order, " "); got != "A a-1 b c" || links != 4 {
		t.Errorf("order %s on %d pages, want A a-1 b c on 4", got, links)
	}
	for _, bad := range []string{"maxresults=0", "maxresults=26", "maxresults=x", "$skiptoken=!", "$skiptoken=e30"} {
		if res := a.do("GET", "/secrets?"+bad, ""); res.Code != 400 {
			t.Errorf("%s: %d %s", bad, res.Code, res.Body)
		}
	}
}

func TestRights(t *testing.T) {
	a := newAPI(t, func(s *emulator.Seed) {
		s.Vaults[0].Access = []emulator.Access{
			{App: emulatortest.ClientID, Allow: []string{"*"}},
			{App: otherClient, Allow: []string{"secrets/get"}, Objects: []string{"mine"}},
		}
		s.Vaults = append(s.Vaults, emulator.Vault{Name: "policies", Permissions: "policies", Access: []emulator.Access{}})
	})
	a.do("PUT", "/secrets/mine", `{"value":"v"}`)
	a.do("PUT", "/secrets/yours", `{"value":"v"}`)
	other := a.login(otherClient, "other")
	for path, status := range map[string]int{"/secrets/MINE": 200, "/secrets/yours": 403, "/secrets": 403, "/secrets/mine/versions": 403, "/keys/mine": 403} {
		if res := a.send("GET", vaultURL+path+"?api-version=7.4", "", other); res.Code != status {
			t.Errorf("%s: %d, want %d", path, res.Code, status)
		}
	}
	caller := "appid=" + otherClient + ";oid=oid-of-other;iss=https://sts.windows.net/" + emulatortest.Tenant + "/"
	got := message(t, a.send("GET", vaultURL+"/secrets/yours?api-version=7.4", "", other))
	want := "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\nCaller: " + caller +
		"\r\nAction: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'\r\nResource: '/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/emulator/providers/microsoft.keyvault/vaults/myvault/secrets/yours'\r\n" +
		"Assignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: 'DeniedWithNoValidRBAC' \r\nVault: myvault;location=uksouth\r\n"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	got = message(t, a.send("GET", "https://policies.vault.azure.net/secrets/x?api-version=7.4", "", other))
	want = "The user, group or application '" + caller + "' does not have secrets get permission on key vault 'policies;location=uksouth'. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func message(t *testing.T, res *httptest.ResponseRecorder) string {
	t.Helper()
	var out struct{ Error struct{ Message string } }
	if err := json.Unmarshal(res.Body.Bytes(), &out); err != nil {
		t.Fatalf("%d %s", res.Code, res.Body)
	}
	return out.Error.Message
}

func TestHosts(t *testing.T) {
	a := newAPI(t, func(s *emulator.Seed) {
		s.Clouds = []emulator.Cloud{{Name: "Stack", VaultSuffix: "vault.stack.example", Authority: "login.stack.example"}}
		s.Vaults = append(s.Vaults, emulator.Vault{Name: "gov", Cloud: "AzureUSGovernmentCloud"}, emulator.Vault{Name: "myvault", Cloud: "Stack"})
	})
	for host, want := range map[string]string{
		"gov.vault.usgovcloudapi.net":     `resource="https://vault.usgovcloudapi.net"`,
		"MYVAULT.vault.stack.example:443": `authorization="https://login.stack.example/`,
	} {
		res := a.send("GET", "https://"+host+"/secrets/x?api-version=7.4", "", "")
		if res.Code != 401 || !strings.Contains(res.Header().Get("WWW-Authenticate"), want) {
			t.Errorf("%s: %d %v", host, res.Code, res.Header())
		}
	}
	for _, host := range []string{"absent.vault.azure.net", "vault.azure.net", "myvault.vault.azure.net.evil.example", "localhost"} {
		if res := a.send("GET", "https://"+host+"/secrets/x?api-version=7.4", "", a.token); res.Code != 404 || a.Serves(host) {
			t.Errorf("%s: %d %s", host, res.Code, res.Body)
		}
	}
	if res := a.send("GET", "https://gov.vault.usgovcloudapi.net/secrets/x?api-version=7.4", "", a.token); !strings.Contains(res.Body.String(), "AKV10022: Invalid audience. Expected https://vault.usgovcloudapi.net, found: https://vault.azure.net.") {
		t.Errorf("a token of another cloud: %d %s", res.Code, res.Body)
	}
}

func TestBodyIsBounded(t *testing.T) {
	a := newAPI(t, nil)
	req := httptest.NewRequest("PUT", vaultURL+"/secrets/x?api-version=7.4", io.LimitReader(zeros{}, 3<<20))
	req.Header.Set("Authorization", "Bearer "+a.token)
	res := httptest.NewRecorder()
	a.ServeHTTP(res, req)
	if res.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("3 MiB: %d", res.Code)
	}
	if res := a.do("PUT", "/secrets/x", fmt.Sprintf(`{"value":%q}`, strings.Repeat("v", 25<<10+1))); res.Code != 400 {
		t.Errorf("a value of more than 25 KiB: %d", res.Code)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
