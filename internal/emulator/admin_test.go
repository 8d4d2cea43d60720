package emulator_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
)

func TestAdmin(t *testing.T) {
	a := newAPI(t, func(s *emulator.Seed) {
		s.Vaults[0].Certificates = []emulator.Certificate{{Name: "c", KeyType: "EC"}}
	})
	h := a.AdminHandler("open sesame")
	send := func(method, path, body, secret string) *httptest.ResponseRecorder {
		req := httptest.NewRequest(method, path, strings.NewReader(body))
		if secret != "" {
			req.Header.Set("Authorization", "Bearer "+secret)
		}
		res := httptest.NewRecorder()
		h.ServeHTTP(res, req)
		return res
	}
	for _, secret := range []string{"", "open", "open sesame "} {
		if res := send("GET", "/v1/requests", "", secret); res.Code != http.StatusUnauthorized {
			t.Errorf("secret %q: %d", secret, res.Code)
		}
	}
	closed := httptest.NewRecorder()
	req := httptest.NewRequest("GET", "/v1/requests", nil)
	req.Header.Set("Authorization", "Bearer ")
	if a.AdminHandler("").ServeHTTP(closed, req); closed.Code != http.StatusUnauthorized {
		t.Errorf("an empty secret lets everybody in: %d", closed.Code)
	}
	for _, row := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"PUT", "/v1/vaults/myvault/secrets/s", `{"value":"v","tags":{"a":"b"}}`, 200, `"version":"`},
		{"PUT", "/v1/vaults/myvault/secrets/s", `{"valu":"v"}`, 400, `unknown field`},
		{"PUT", "/v1/vaults/nowhere/secrets/s", `{"value":"v"}`, 400, `there is no vault \"nowhere\": add it to the seed`},
		{"POST", "/v1/vaults/myvault/secrets/s/disable", "", 200, "{}"},
		{"POST", "/v1/vaults/myvault/secrets/s/enable?version=00000000000000000000000000000000", "", 400, "has no version"},
		{"POST", "/v1/vaults/myvault/secrets/s/rotate", "", 400, "only keys and certificates rotate"},
		{"POST", "/v1/vaults/myvault/secrets/s/shred", "", 400, "use enable, disable or rotate"},
		{"POST", "/v1/vaults/myvault/things/s/disable", "", 400, "use secrets, keys or certificates"},
		{"POST", "/v1/vaults/myvault/certificates/c/rotate", "", 200, `"version":"`},
		{"POST", "/v1/vaults/myvault/keys/c/rotate", "", 400, "belongs to a certificate"},
		{"DELETE", "/v1/vaults/myvault/secrets/s", "", 200, "{}"},
		{"PUT", "/v1/vaults/myvault/secrets/s", `{"value":"v"}`, 400, "the secret is deleted: recover or purge it first"},
		{"PUT", "/v1/vaults/myvault/access", `[{"app":"*","allow":["secrets/get"]}]`, 200, "{}"},
		{"PUT", "/v1/vaults/myvault/access", `[{"app":"*","allow":["secrets/steal"]}]`, 400, "is not a right"},
		{"PUT", "/v1/latency/vault", `{"latency":"1ms"}`, 200, "{}"},
		{"PUT", "/v1/latency/vault", `{"latency":"fast"}`, 400, "invalid duration"},
		{"POST", "/v1/faults", `{"do":"throttle","times":2}`, 200, `{"id":1}`},
		{"GET", "/v1/faults", "", 200, `[{"id":1,"hit":0,"fault":{"do":"throttle","times":2}}]`},
		{"DELETE", "/v1/faults/2", "", 400, "there is no fault"},
		{"DELETE", "/v1/faults/1", "", 200, "{}"},
		{"POST", "/v1/tokens", `{"namespace":"app","serviceAccount":"reader"}`, 200, `{"token":"ey`},
		{"POST", "/v1/tokens", `{"namespace":"app"}`, 400, "service account are needed"},
		{"POST", "/v1/tokens", `{"namespace":"a","serviceAccount":"b","issuer":"https://x"}`, 400, "is not one of the seed's: " + emulatortest.Issuer},
		{"GET", "/v1/requests?log=true", "", 200, `"counts":{"token":1}`},
		{"DELETE", "/v1/requests", "", 200, "{}"},
	} {
		res := send(row.method, row.path, row.body, "open sesame")
		if res.Code != row.status || !strings.Contains(res.Body.String(), row.want) {
			t.Errorf("%s %s %s: %d %s", row.method, row.path, row.body, res.Code, res.Body)
		}
	}
}

func TestSeedFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := strings.ReplaceAll(strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))), "\n", "\n      ")
	write("value", "from a file\n")
	const head = "tenants: [{id: t, apps: [{clientID: a, clientSecret: b}]}]\nvaults:\n- name: myvault\n"
	load := func(rest string) (*emulator.Server, error) {
		seed, err := emulator.ReadSeed(write("seed.yaml", head+rest))
		if err != nil {
			return nil, err
		}
		s := emulator.New(emulator.Options{SigningKey: emulatortest.SigningKey()})
		return s, s.Load(seed)
	}
	s, err := load("  secrets:\n  - {name: s, valueFile: value}\n  - name: v\n    versions: [{id: 0123456789abcdef0123456789abcdef, value: old, created: 2020-01-01T00:00:00Z}, {value: new, enabled: false}]\n" +
		"  keys:\n  - name: k\n    publicKey: |\n      " + public + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if !s.Serves("MYVAULT.vault.azure.net:443") || len(s.Hosts()) != 10 {
		t.Errorf("hosts %v", s.Hosts())
	}
	for _, row := range []struct{ rest, want string }{
		{"  secrets: [{name: s, valueFile: absent}]\n", "vaults[0].secrets[0] (s): versions[0]: open "},
		{"  secrets: [{name: s, value: a, valueFile: value}]\n", "leave one out"},
		{"  secrets: [{name: s, id: x}]\n", `versions[0].id "x": use 32 lower-case hex digits`},
		{"  keys: [{name: k, type: DSA}]\n", `vaults[0].keys[0] (k): unknown key type "DSA": use RSA, EC, RSA-HSM or EC-HSM`},
		{"  keys: [{name: k, publicKey: x}]\n", "publicKey is not PEM"},
		{"  certificates: [{name: c, subject: nobody}]\n", `subject "nobody" is not of the form CN=name`},
		{"  certificates: [{name: c, contentType: text/plain}]\n", "use application/x-pkcs12 or application/x-pem-file"},
		{"  certificates: [{name: c, parents: 9}]\n", "parents: 9 is not between 0 and 8"},
		{"  cloud: Mars\n", `vaults[0].cloud: "Mars" is not known: use AzurePublicCloud`},
		{"  recoverableDays: 3\n", "is not between 7 and 90"},
		{"  permissions: none\n", "is neither rbac nor policies"},
		{"  access: [{allow: [get]}]\n", "vaults[0].access[0].allow[0]"},
		{"  secret: []\n", "field secret not found"},
	} {
		if _, err := load(row.rest); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %s", row.rest, err, row.want)
		}
	}
}
