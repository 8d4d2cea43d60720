package vault_test

import (
	"context"
	"crypto/x509"
	"errors"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"keymount/internal/azure/vault"
	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
)

func TestReads(t *testing.T) {
	w := newWorld(t)
	who := w.principal()
	old := w.PutSecret("alpha", "one", "old")
	newest := w.PutSecret("alpha", "one", "new \u0000 é\n")
	put := func(version string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return version
	}
	rsa := put(w.Server.PutKey("alpha", emulator.Key{Name: "rsa"}))
	ec := put(w.Server.PutKey("alpha", emulator.Key{Name: "ec", Type: "EC-HSM", Curve: "P-521"}))
	cert := put(w.Server.PutCertificate("alpha", emulator.Certificate{Name: "cert", KeyType: "EC"}))

	for version, want := range map[string]string{"": "new \u0000 é\n", newest: "new \u0000 é\n", old: "old", strings.ToUpper(old): "old"} {
		s, err := w.client.Secret(t.Context(), who, vaultURL, "one", version)
		if err != nil || string(s.Value) != want || !s.Enabled || time.Since(s.Created) > time.Minute || s.KeyID != "" {
			t.Errorf("version %q: %+v, %v", version, s, err)
		} else if version == "" && s.Version != newest {
			t.Errorf("the newest version is %q, want %q", s.Version, newest)
		}
	}
	k, err := w.client.Key(t.Context(), who, vaultURL+"/", "rsa", "")
	if err != nil || k.Version != rsa || k.Type != "RSA" || new(big.Int).SetBytes(k.N).BitLen() != 2048 || string(k.E) != "\x01\x00\x01" {
		t.Errorf("RSA key: %+v, %v", k, err)
	}
	k, err = w.client.Key(t.Context(), who, vaultURL, "ec", ec)
	if err != nil || k.Version != ec || k.Type != "EC-HSM" || k.Curve != "P-521" || len(k.X) != 66 || len(k.Y) != 66 {
		t.Errorf("EC key: %+v, %v", k, err)
	}
	c, err := w.client.Certificate(t.Context(), who, vaultURL, "cert", "")
	if err != nil || c.Version != cert {
		t.Fatalf("certificate: %+v, %v", c, err)
	}
	if parsed, err := x509.ParseCertificate(c.DER); err != nil || parsed.Subject.CommonName != "cert" {
		t.Errorf("its DER is not the certificate: %v", err)
	}
	s, err := w.client.Secret(t.Context(), who, vaultURL, "cert", "")
	if err != nil || s.Version != cert || !strings.HasSuffix(s.KeyID, "/keys/cert/"+cert) || s.ContentType != "application/x-pkcs12" {
		t.Errorf("the secret behind it: %+v, %v", s, err)
	}
	for _, e := range w.Server.Log() {
		if e.Kind == emulator.KindSecretGet && !strings.HasSuffix(e.Path, "?api-version=7.4") || e.Kind == emulator.KindChallenge {
			t.Errorf("request %s %s of kind %s", e.Method, e.Path, e.Kind)
		}
	}
	if n := w.Requests(); n[emulator.KindToken] != 1 {
		t.Errorf("requests are %v, want one for a token", n)
	}
}

func TestVersions(t *testing.T) {
	w := newWorld(t)
	who := w.principal()
	var versions []emulator.SecretVersion
	off := false
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 60 {
		v := emulator.SecretVersion{Value: "v", Created: start.Add(time.Duration(i/2) * time.Hour)}
		if i%7 == 0 {
			v.Enabled = &off
		}
		versions = append(versions, v)
	}
	if _, err := w.Server.PutSecret("alpha", emulator.Secret{Name: "many", Versions: versions}); err != nil {
		t.Fatal(err)
	}
	w.SetFault(emulator.Fault{Do: emulator.ActEmptyPage, Kind: emulator.KindVersions, Times: 1})
	all, err := w.client.Versions(t.Context(), who, vaultURL, vault.KindSecret, "many")
	if err != nil || len(all) != 60 {
		t.Fatalf("%d versions, %v", len(all), err)
	}
	disabled := 0
	for i, v := range all {
		if !v.Enabled {
			disabled++
		}
		if i > 0 && (v.Created.After(all[i-1].Created) || v.Created.Equal(all[i-1].Created) && v.Version >= all[i-1].Version) {
			t.Fatalf("%v comes after %v", v, all[i-1])
		}
	}
	if disabled != 9 {
		t.Errorf("%d are disabled, want 9", disabled)
	}
	all[0] = vault.Version{} // the result is the caller's: nobody else sees this
	again, err := w.client.Versions(t.Context(), who, vaultURL, vault.KindSecret, "many")
	if err != nil || again[0] == (vault.Version{}) {
		t.Errorf("a caller's change reaches others: %v", err)
	}
	if none, err := w.client.Versions(t.Context(), who, vaultURL, vault.KindSecret, "none"); err != nil || len(none) != 0 {
		t.Errorf("of an object that does not exist: %v, %v", none, err)
	}
	if n := w.Requests()[emulator.KindVersions]; n != 5 {
		t.Errorf("%d pages were asked for, want an empty one, 25, 25, 10, and one of nothing", n)
	}
	put, err := w.Server.PutKey("alpha", emulator.Key{Name: "k"})
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := w.client.Versions(t.Context(), who, vaultURL, vault.KindKey, "k"); err != nil || len(keys) != 1 || keys[0].Version != put {
		t.Errorf("versions of a key: %v, %v", keys, err)
	}
	put, err = w.Server.PutCertificate("alpha", emulator.Certificate{Name: "c", KeyType: "EC"})
	if err != nil {
		t.Fatal(err)
	}
	if certs, err := w.client.Versions(t.Context(), who, vaultURL, vault.KindCertificate, "c"); err != nil || len(certs) != 1 || certs[0].Version != put {
		t.Errorf("versions of a certificate: %v, %v", certs, err)
	}
}

// Each row disturbs a good read and says what becomes of it, and after how many requests.
func TestFailures(t *testing.T) {
	type reader = func(context.Context, *world) error
	secret := func(ctx context.Context, w *world) error {
		_, err := w.client.Secret(ctx, w.principal(), vaultURL, "one", "")
		return err
	}
	pinned := func(ctx context.Context, w *world) error {
		_, err := w.client.Secret(ctx, w.principal(), vaultURL, "one", strings.Repeat("0", 32))
		return err
	}
	key := func(ctx context.Context, w *world) error {
		_, err := w.client.Key(ctx, w.principal(), vaultURL, "k", "")
		return err
	}
	cert := func(ctx context.Context, w *world) error {
		_, err := w.client.Certificate(ctx, w.principal(), vaultURL, "none", "")
		return err
	}
	list := func(ctx context.Context, w *world) error {
		_, err := w.client.Versions(ctx, w.principal(), vaultURL, vault.KindSecret, "one")
		return err
	}
	disable := func(w *world) {
		off := false
		if _, err := w.Server.PutSecret("alpha", emulator.Secret{Name: "one", SecretVersion: emulator.SecretVersion{Value: "v", Enabled: &off}}); err != nil {
			w.t.Fatal(err)
		}
	}
	policies := func(s *emulator.Seed) { s.Vaults[0].Permissions, s.Vaults[0].Access = "policies", []emulator.Access{} }
	rbac := func(s *emulator.Seed) { s.Vaults[0].Access = []emulator.Access{} }
	body := func(status int, body string) emulator.Fault {
		return emulator.Fault{Do: emulator.ActBody, Kind: emulator.GroupVault, Status: status, Body: body}
	}
	inner := func(code string) emulator.Fault {
		return body(403, `{"error":{"code":"Forbidden","message":"First line.\r\nSecond line","innererror":{"code":"`+code+`"}}}`)
	}
	furnished := func(change ...func(*emulator.Seed)) *world {
		w := newWorld(t, change...)
		w.PutSecret("alpha", "one", "the-secret-value")
		if _, err := w.Server.PutKey("alpha", emulator.Key{Name: "k"}); err != nil {
			t.Fatal(err)
		}
		return w
	}
	plain := furnished()
	const id = `"id":"https://alpha.vault.azure.net/secrets/one/0123456789abcdef0123456789abcdef"`
	for _, tc := range []struct {
		name     string
		seed     func(*emulator.Seed)
		prepare  func(*world)
		fault    emulator.Fault
		read     reader
		kind     provider.Kind
		object   string
		want     string
		requests int
	}{
		{name: "no such certificate", read: cert, kind: provider.NotFound, object: "cert/none", want: "CertificateNotFound"},
		{name: "no such version", read: pinned, kind: provider.NotFound, want: "correct objectName and objectVersion"},
		{name: "disabled", prepare: disable, read: secret, kind: provider.Denied, want: "HTTP 403 SecretDisabled: Operation get is not allowed on a disabled secret."},
		{name: "no role", seed: rbac, read: secret, kind: provider.Denied, want: "ForbiddenByRbac: Caller is not authorized to perform action on resource. [x-ms-request-id "},
		{name: "no role for keys", seed: rbac, read: key, kind: provider.Denied, object: "key/k", want: "Key Vault Crypto User"},
		{name: "no access policy", seed: policies, read: secret, kind: provider.Denied, want: "permission get on secrets"},
		{name: "no access policy for lists", seed: policies, read: list, kind: provider.Denied, want: "permission list on secrets"},
		{name: "firewall", fault: emulator.Fault{Do: emulator.ActFirewall}, read: secret, kind: provider.Denied, want: "vault's firewall"},
		{name: "private only", fault: inner("ForbiddenByConnection"), read: secret, kind: provider.Denied, want: "ForbiddenByConnection: First line. [x-ms"},
		{name: "on behalf of", fault: inner("ForbiddenByPolicy"), read: secret, kind: provider.Denied, want: "on behalf of a user"},
		{name: "forbidden for reasons unknown", fault: inner(`New\u0000Reason`), read: secret, kind: provider.Denied, want: "New Reason"},
		{name: "401 for ever", fault: emulator.Fault{Do: emulator.ActUnauthorized, Kind: emulator.GroupVault}, read: secret, kind: provider.Denied, want: "compare tenantID and cloudName", requests: 2},
		{name: "401 with a bare challenge", fault: emulator.Fault{Do: emulator.ActBareChallenge, Kind: emulator.GroupVault}, read: secret, kind: provider.Denied, want: "does not accept this identity's token", requests: 2},
		{name: "an HTML page", fault: emulator.Fault{Do: emulator.ActHTML, Kind: emulator.GroupVault}, read: secret, kind: provider.Invalid, want: "HTTP 400"},
		{name: "a redirect", fault: body(302, ""), read: secret, kind: provider.Internal, want: "nothing but HTTP 200 is expected"},
		{name: "no content", fault: body(204, ""), read: secret, kind: provider.Internal, want: "HTTP 204"},
		{name: "a teapot", fault: body(418, `{"error":null}`), read: secret, kind: provider.Internal, want: "HTTP 418"},
		{name: "unknown API version", fault: body(400, `{"error":{"code":"BadParameter","message":"The specified version (7.4) is not recognized."}}`), read: secret, kind: provider.Invalid, want: "BadParameter: The specified version"},
		{name: "wrong types", fault: emulator.Fault{Do: emulator.ActTypes, Kind: emulator.GroupVault}, read: secret, kind: provider.Internal, want: "has the wrong type"},
		{name: "no value", fault: emulator.Fault{Do: emulator.ActMissing, Member: "value"}, read: secret, kind: provider.Internal, want: "it has no value"},
		{name: "no id", fault: emulator.Fault{Do: emulator.ActMissing, Member: "id"}, read: secret, kind: provider.Internal, want: "it has no id"},
		{name: "a key without type", fault: emulator.Fault{Do: emulator.ActMissing, Member: "kty"}, read: key, kind: provider.Internal, object: "key/k", want: "no key type"},
		{name: "a key without curve", fault: body(200, `{"key":{"kty":"EC","kid":"https://v/keys/k/0123456789abcdef0123456789abcdef"}}`), read: key, kind: provider.Internal, object: "key/k", want: "no curve"},
		{name: "a key without modulus", fault: emulator.Fault{Do: emulator.ActMissing, Member: "n"}, read: key, kind: provider.Internal, object: "key/k", want: "its n is missing"},
		{name: "null", fault: body(200, "null"), read: secret, kind: provider.Internal, want: "it has no value"},
		{name: "a key that is null", fault: body(200, `{"key":null}`), read: key, kind: provider.Internal, object: "key/k", want: "no key type"},
		{name: "half of JSON", fault: body(200, `{"value":"the-secret-value`), read: secret, kind: provider.Internal, want: "not JSON from byte"},
		{name: "another object", fault: body(200, `{"value":"x",`+strings.Replace(id, "one", "two", 1)+`}`), read: secret, kind: provider.Internal, want: "that of another object"},
		{name: "another kind", fault: body(200, `{"value":"x",`+strings.Replace(id, "secrets", "keys", 1)+`}`), read: secret, kind: provider.Internal, want: "not that of a version of a secret"},
		{name: "another version", fault: body(200, `{"value":"x",`+id+`}`), read: pinned, kind: provider.Internal, want: "that of another version"},
		{name: "a version with a path", fault: body(200, `{"value":"x",`+strings.Replace(id, "0123", "..%2f", 1)+`}`), read: secret, kind: provider.Internal, want: "not that of a version"},
		{name: "2 MiB", fault: emulator.Fault{Do: emulator.ActOversize, Kind: emulator.GroupVault}, read: secret, kind: provider.Internal, want: "larger than 1 MiB"},
		{name: "a link to another host", fault: emulator.Fault{Do: emulator.ActForeignLink, Kind: emulator.GroupVault, Host2: "evil.example"}, read: list, kind: provider.Internal, want: "another host"},
		{name: "a link to plain HTTP", fault: body(200, `{"value":[],"nextLink":"http://alpha.vault.azure.net/secrets/one/versions?x=y"}`), read: list, kind: provider.Internal, want: "another host"},
		{name: "a link to another port", fault: body(200, `{"value":[],"nextLink":"https://alpha.vault.azure.net:444/secrets/one/versions?x=y"}`), read: list, kind: provider.Internal, want: "another host"},
		{name: "a link with a user", fault: body(200, `{"value":[],"nextLink":"https://a@alpha.vault.azure.net/secrets/one/versions?x=y"}`), read: list, kind: provider.Internal, want: "another host"},
		{name: "a link to another list", fault: body(200, `{"value":[],"nextLink":"https://alpha.vault.azure.net/secrets/two/versions?x=y"}`), read: list, kind: provider.Internal, want: "another list"},
		{name: "a list of nothing known", fault: body(200, `{"value":[{"id":1}]}`), read: list, kind: provider.Internal, want: "wrong type"},
		{name: "a list that does not end", fault: emulator.Fault{Do: emulator.ActEndlessPages, Kind: emulator.GroupVault}, read: list, kind: provider.Internal, want: "does not end", requests: 500},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := plain
			if tc.seed != nil {
				w = furnished(tc.seed)
			}
			w.restart()
			if tc.prepare != nil {
				tc.prepare(w)
				defer w.PutSecret("alpha", "one", "the-secret-value")
			}
			if tc.fault.Do != "" {
				if tc.fault.Kind == "" {
					tc.fault.Kind = emulator.GroupVault
				}
				defer w.SetFault(tc.fault)()
			}
			err := tc.read(t.Context(), w)
			if err == nil {
				t.Fatal("it succeeded")
			}
			object := tc.object
			if object == "" {
				object = "secret/one"
			}
			var e *provider.Error
			if !errors.As(err, &e) || e.Kind != tc.kind || e.Object != object || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%#v\nwant kind %v of %s with %q", err, tc.kind, object, tc.want)
			}
			for _, part := range []string{`"` + object[strings.IndexByte(object, '/')+1:] + `"`, "vault alpha.vault.azure.net"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not name %s", err, part)
				}
			}
			for _, bad := range []string{"the-secret-value", "Second line", "eyJ", "\n", "\u0000"} {
				if strings.Contains(err.Error(), bad) {
					t.Errorf("%q contains %q", err, bad)
				}
			}
			want := max(tc.requests, 1)
			if n := w.Requests().Total(emulator.GroupVault); n != want {
				t.Errorf("%d requests to the vault, want %d", n, want)
			}
			if _, _, left := w.client.Kept(); left != 0 {
				t.Errorf("%d failed reads are kept", left)
			}
		})
	}
}

// What cannot be an object is refused before anything is sent, a token request included.
func TestNothingIsSentForWhatIsNoObject(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct{ vaultURL, name, version, want string }{
		{vaultURL, "", "", "object name"},
		{vaultURL, "a/../b", "", "object name"},
		{vaultURL, "a?b", "", "object name"},
		{vaultURL, strings.Repeat("a", 128), "", "object name"},
		{vaultURL, "a", "latest", "version"},
		{vaultURL, "a", strings.Repeat("g", 32), "version"},
		{vaultURL, "a", "../../keys/b", "version"},
		{"http://alpha.vault.azure.net", "a", "", "https://host"},
		{"https://user@alpha.vault.azure.net", "a", "", "https://host"},
		{"https://alpha.vault.azure.net/secrets", "a", "", "https://host"},
		{"https://alpha.vault.azure.net?x", "a", "", "https://host"},
		{"https://", "a", "", "https://host"},
		{"https://a\x00b", "a", "", "https://host"},
	} {
		_, err := w.client.Secret(t.Context(), w.principal(), tc.vaultURL, tc.name, tc.version)
		if err == nil || provider.KindOf(err) != provider.Invalid || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q %q %q: %v", tc.vaultURL, tc.name, tc.version, err)
		}
	}
	if _, err := w.client.Versions(t.Context(), w.principal(), vaultURL, "certificate", "a"); provider.KindOf(err) != provider.Invalid || err == nil {
		t.Errorf("a kind that is none: %v", err)
	}
	if _, err := w.client.Secret(t.Context(), nil, vaultURL, "a", ""); err == nil || !strings.Contains(err.Error(), "nobody is asking") {
		t.Errorf("without a credential: %v", err)
	}
	if n := w.Requests().Total(); n != 0 {
		t.Errorf("%d requests were made", n)
	}
}

// A token that a vault no longer accepts is replaced, once.
func TestRejectedTokenIsReplaced(t *testing.T) {
	w := newWorld(t)
	w.PutSecret("alpha", "one", "value")
	who := w.principal()
	w.SetFault(emulator.Fault{Do: emulator.ActUnauthorized, Kind: emulator.KindSecretGet, Times: 1})
	s, err := w.client.Secret(t.Context(), who, vaultURL, "one", "")
	if err != nil || string(s.Value) != "value" {
		t.Fatalf("%v, %v", s, err)
	}
	if n := w.Requests(); n[emulator.KindToken] != 2 || n[emulator.KindSecretGet] != 2 {
		t.Errorf("requests are %v, want two tokens and two reads", n)
	}
}

// A refused credential concerns the whole request and is not blamed on an object; nothing is read with it.
func TestRefusedCredential(t *testing.T) {
	w := newWorld(t)
	_, err := w.client.Secret(t.Context(), principal(t, w.source, emulatortest.ClientID, "wrong"), vaultURL, "one", "")
	var e *provider.Error
	if !errors.As(err, &e) || e.Kind != provider.Denied || e.Object != "" || !strings.Contains(e.Message, "AADSTS7000215") {
		t.Errorf("%#v", err)
	}
	if n := w.Requests().Total(emulator.GroupVault); n != 0 {
		t.Errorf("%d requests to the vault", n)
	}
}

// The challenge is repeated for people and otherwise ignored: no request goes where it points.
func TestHostileChallenge(t *testing.T) {
	for _, header := range []string{
		`Bearer authorization="https://evil.example/t", resource="https://evil.example"`,
		`Bearer authorization="`, `Bearer`, ``, `Bearer authorization=x, resource="` + strings.Repeat("x", 100_000),
		"Bearer authorization=\"\x01\x02é\", resource=\"\"", `Bearer resource="https://vault.azure.cn"`,
	} {
		f := newFake(func(req *http.Request, _ int) (*http.Response, error) {
			if req.URL.Host != "alpha.vault.azure.net" {
				t.Errorf("a request goes to %s", req.URL.Host)
			}
			return respond(req, 401, "", "WWW-Authenticate: "+header), nil
		})
		source, client := f.client()
		_, err := client.Secret(t.Context(), principal(t, source, "c", "s"), vaultURL, "one", "")
		if provider.KindOf(err) != provider.Denied || len(err.Error()) > 2000 {
			t.Errorf("%.50q: %v", header, err)
		}
		if strings.Contains(header, "azure.cn") && !strings.Contains(err.Error(), `resource "https://vault.azure.cn"`) {
			t.Errorf("the error does not say what the vault expects: %v", err)
		}
	}
}
