package emulator_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
)

const clusterURL = "https://kubernetes.default.svc.cluster.local"

// otherCluster is an emulator in the place of a real cluster: it signs, and what leaves it is its key set.
func otherCluster(t *testing.T) *emulator.Issuer {
	t.Helper()
	is, err := emulator.New(emulator.Options{}).AddIssuer(clusterURL, "RS256", emulatortest.SigningKey())
	if err != nil {
		t.Fatal(err)
	}
	return is
}

// A token that another process signed is taken by the keys that the seed gives, and by no others.
func TestTokensOfARealCluster(t *testing.T) {
	cluster := otherCluster(t)
	file := filepath.Join(t.TempDir(), "jwks.json")
	// Members that nobody asked for are passed over.
	named := strings.Replace(string(cluster.JWKS()), `"kid":"`, `"x5t":"ignored","kid":"`, 1)
	if err := os.WriteFile(file, []byte(named), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, in := range []emulator.IssuerSeed{{URL: clusterURL, JWKS: named}, {URL: clusterURL, JWKSFile: file}} {
		a := newAPI(t, func(s *emulator.Seed) {
			s.Issuers = append(s.Issuers, in)
			s.Tenants[0].Apps[0].Federated = append(s.Tenants[0].Apps[0].Federated, emulator.Federated{Issuer: clusterURL, Subject: "system:serviceaccount:app:reader"})
		})
		a.clock = time.Now()
		token, err := cluster.Token(emulator.ServiceAccount{Namespace: "app", Name: "reader"}, []string{emulatortest.Audience}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range []struct {
			token  string
			status int
			want   string
		}{
			{token, 200, `"access_token":"`},
			{edited(t, token, func(c map[string]any) { c["exp"] = 9e9 }), 401, "AADSTS700027"},
			{a.service(emulatortest.Issuer, "app", emulatortest.Audience, time.Hour), 200, `"access_token":"`},
		} {
			form := loginForm(emulatortest.ClientID, "")
			form.Del("client_secret")
			form.Set("client_assertion", row.token)
			if res := a.post(tokenURL, form); res.Code != row.status || !strings.Contains(res.Body.String(), row.want) {
				t.Errorf("%d %s", res.Code, res.Body)
			}
		}
		if _, err := a.Issuer(clusterURL).Token(emulator.ServiceAccount{Namespace: "a", Name: "b"}, nil, time.Hour); err == nil || !strings.Contains(err.Error(), "kubectl create token") {
			t.Errorf("the emulator makes tokens of a cluster of which it has public keys only: %v", err)
		}
		var doc struct {
			JWKS string `json:"jwks_uri"`
		}
		if err := json.Unmarshal(a.send("GET", clusterURL+"/.well-known/openid-configuration", "", "").Body.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		if got := a.send("GET", doc.JWKS, "", "").Body.String(); got != string(cluster.JWKS()) {
			t.Errorf("the key set served is %s, want %s", got, cluster.JWKS())
		}
	}
}

// A cluster whose keys were replaced is given anew; one that signs here is not taken over.
func TestKeySetIsReplaced(t *testing.T) {
	s := emulator.New(emulator.Options{})
	first, second := otherCluster(t), func() *emulator.Issuer {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		is, err := emulator.New(emulator.Options{}).AddIssuer(clusterURL, "", key)
		if err != nil {
			t.Fatal(err)
		}
		return is
	}()
	for _, is := range []*emulator.Issuer{first, second} {
		if _, err := s.AddCluster(clusterURL, is.JWKS()); err != nil {
			t.Fatal(err)
		}
		if got := string(s.Issuer(clusterURL).JWKS()); got != string(is.JWKS()) {
			t.Errorf("the keys are %s", got)
		}
	}
	if _, err := s.AddIssuer("https://own.example", "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddCluster("https://own.example", first.JWKS()); err == nil || !strings.Contains(err.Error(), "key of its own") {
		t.Errorf("an emulated cluster was taken over: %v", err)
	}
}

func TestKeySetsThatAreRefused(t *testing.T) {
	var good struct{ Keys []map[string]string }
	if err := json.Unmarshal(otherCluster(t).JWKS(), &good); err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	for name, row := range map[string]struct {
		change func(key map[string]string)
		want   string
	}{
		"private":         {func(k map[string]string) { k["d"] = "AQAB" }, "keys[0]: it is a private key"},
		"for encryption":  {func(k map[string]string) { k["use"] = "enc" }, `use "enc"`},
		"symmetric":       {func(k map[string]string) { k["kty"] = "oct" }, `kty "oct"`},
		"other algorithm": {func(k map[string]string) { k["alg"] = "RS512" }, `alg "RS512"`},
		"no id":           {func(k map[string]string) { delete(k, "kid") }, "kid is missing"},
		"long id":         {func(k map[string]string) { k["kid"] = strings.Repeat("a", 1000) }, "kid is missing or too long"},
		"short modulus":   {func(k map[string]string) { k["n"] = b64([]byte(strings.Repeat("\xff", 128))) }, "n has 1024 bits"},
		"even modulus":    {func(k map[string]string) { k["n"] = b64([]byte(strings.Repeat("\xfe", 256))) }, "odd"},
		"huge modulus":    {func(k map[string]string) { k["n"] = b64([]byte(strings.Repeat("\xff", 4096))) }, "more than 8192 bits"},
		"no modulus":      {func(k map[string]string) { delete(k, "n") }, "n is missing"},
		"padding":         {func(k map[string]string) { k["n"] += "=" }, "base64url"},
		"exponent one":    {func(k map[string]string) { k["e"] = "AQ" }, "not a public exponent"},
		"huge exponent":   {func(k map[string]string) { k["e"] = b64([]byte("\xff\xff\xff\xff\xff")) }, "more than 32 bits"},
		"no such point": {func(k map[string]string) {
			clear(k)
			k["kty"], k["crv"], k["kid"], k["x"], k["y"] = "EC", "P-256", "a", "AQ", "AQ"
		}, "no point of P-256"},
	} {
		key := map[string]string{}
		for k, v := range good.Keys[0] {
			key[k] = v
		}
		row.change(key)
		document, err := json.Marshal(map[string]any{"keys": []any{key}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := emulator.New(emulator.Options{}).AddCluster(clusterURL, document); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
	twice, _ := json.Marshal(map[string]any{"keys": []any{good.Keys[0], good.Keys[0]}})
	for document, want := range map[string]string{"": "reading the key set", "{}": "has 0 keys", string(twice): "there twice",
		strings.Repeat(" ", 300<<10): "larger than", `{"keys":[` + strings.Repeat("{},", 40) + `{}]}`: "has 41 keys"} {
		if _, err := emulator.New(emulator.Options{}).AddCluster(clusterURL, []byte(document)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", document, err, want)
		}
	}
	err := emulator.New(emulator.Options{}).Load(emulator.Seed{Issuers: []emulator.IssuerSeed{
		{URL: clusterURL, Algorithm: "RS256", JWKS: string(twice)}, {URL: clusterURL, JWKS: "{}", JWKSFile: "x"}, {URL: clusterURL, JWKSFile: "absent.json"}}})
	for _, want := range []string{"issuers[0]: algorithm and jwks are both given", "issuers[1]: jwks: the text and a file are both given", "issuers[2]: jwks: open absent.json"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// FuzzKeySet: no document makes the emulator panic, and what it takes can be served again.
func FuzzKeySet(f *testing.F) {
	is, err := emulator.New(emulator.Options{}).AddIssuer(clusterURL, "", nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(is.JWKS())
	f.Fuzz(func(t *testing.T, document []byte) {
		is, err := emulator.New(emulator.Options{}).AddCluster(clusterURL, document)
		if err != nil {
			return
		}
		if _, err := emulator.New(emulator.Options{}).AddCluster(clusterURL, is.JWKS()); err != nil {
			t.Errorf("%s is served as %s: %v", document, is.JWKS(), err)
		}
	})
}
