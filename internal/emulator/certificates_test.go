package emulator_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"keymount/internal/emulator"
)

// stored is a secret as the vault shows it.
func (a *api) stored(name string) (value, contentType string) {
	a.t.Helper()
	var out struct{ Value, ContentType, KID string }
	res := a.do("GET", "/secrets/"+name, "")
	if err := json.Unmarshal(res.Body.Bytes(), &out); err != nil || out.KID == "" {
		a.t.Fatalf("%d %s", res.Code, res.Body)
	}
	return out.Value, out.ContentType
}

func (a *api) certificate(c emulator.Certificate) (value, contentType string) {
	a.t.Helper()
	if _, err := a.PutCertificate("myvault", c); err != nil {
		a.t.Fatal(err)
	}
	return a.stored(c.Name)
}

// safes counts the safes of a PFX (RFC 7292 4.1).
func safes(t *testing.T, der []byte) int {
	t.Helper()
	var pfx struct {
		Version  int
		AuthSafe struct {
			Type    asn1.ObjectIdentifier
			Content asn1.RawValue `asn1:"tag:0,explicit"`
		}
		Mac asn1.RawValue
	}
	if _, err := asn1.Unmarshal(der, &pfx); err != nil {
		t.Fatal(err)
	}
	var octets []byte
	if _, err := asn1.Unmarshal(pfx.AuthSafe.Content.Bytes, &octets); err != nil {
		t.Fatal(err)
	}
	var all []asn1.RawValue
	if _, err := asn1.Unmarshal(octets, &all); err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestCertificateSecrets(t *testing.T) {
	a := newAPI(t, nil)
	no := false
	value, contentType := a.certificate(emulator.Certificate{Name: "pfx", KeyType: "EC", Parents: 2})
	der, err := base64.StdEncoding.DecodeString(value)
	if err != nil || contentType != "application/x-pkcs12" {
		t.Fatal(contentType, err)
	}
	key, leaf, chain, err := pkcs12.DecodeChain(der, "")
	if err != nil || len(chain) != 2 || !key.(*ecdsa.PrivateKey).PublicKey.Equal(leaf.PublicKey) || safes(t, der) != 2 {
		t.Fatalf("%v, chain of %d", err, len(chain))
	}
	if err := leaf.CheckSignatureFrom(chain[0]); err != nil {
		t.Error(err)
	}
	//lint:ignore SA1019 it keeps the order of the file
	if blocks, err := pkcs12.ToPEM(der, ""); err != nil || !strings.HasSuffix(blocks[0].Type, "PRIVATE KEY") {
		t.Errorf("the key's safe is not the first: %v", err)
	}

	value, _ = a.certificate(emulator.Certificate{Name: "pfx-without-key", KeyType: "EC", Parents: 1, Exportable: &no})
	if der, err = base64.StdEncoding.DecodeString(value); err != nil || safes(t, der) != 1 {
		t.Fatalf("%d safes, %v", safes(t, der), err)
	}
	// The MAC and the password are checked before what this function wants of the content.
	if _, err := pkcs12.DecodeTrustStore(der, ""); err == nil || !strings.Contains(err.Error(), "trusted") {
		t.Errorf("one safe without a key: %v", err)
	}

	value, contentType = a.certificate(emulator.Certificate{Name: "pem", KeyType: "EC", ContentType: "application/x-pem-file", Parents: 1})
	if contentType != "application/x-pem-file" || fmt.Sprint(blockTypes(value)) != "[PRIVATE KEY CERTIFICATE CERTIFICATE]" || !strings.HasSuffix(value, "-----\n") || strings.Contains(value, "\r") {
		t.Errorf("%s: %v", contentType, blockTypes(value))
	}
	value, _ = a.certificate(emulator.Certificate{Name: "pem-without-key", KeyType: "EC-HSM", ContentType: "application/x-pem-file"})
	if fmt.Sprint(blockTypes(value)) != "[CERTIFICATE]" {
		t.Errorf("an HSM's key leaves the vault: %v", blockTypes(value))
	}
}

func blockTypes(text string) []string {
	var all []string
	for rest := []byte(text); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return all
		}
		all = append(all, b.Type)
	}
}

func TestImportsKeepTheirBytes(t *testing.T) {
	a := newAPI(t, nil)
	value, _ := a.certificate(emulator.Certificate{Name: "made", KeyType: "EC", Parents: 2})
	der, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		t.Fatal(err)
	}
	key, leaf, chain, err := pkcs12.DecodeChain(der, "")
	if err != nil {
		t.Fatal(err)
	}
	modern, err := pkcs12.Modern2026.Encode(key, leaf, chain, "")
	if err != nil {
		t.Fatal(err)
	}
	locked, err := pkcs12.Modern.Encode(key, leaf, chain, "password")
	if err != nil {
		t.Fatal(err)
	}
	var odd bytes.Buffer // root first, the key last
	for _, c := range []*x509.Certificate{chain[1], leaf, chain[0]} {
		_ = pem.Encode(&odd, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	_ = pem.Encode(&odd, &pem.Block{Type: "PRIVATE KEY", Bytes: b})

	if got, _ := a.certificate(emulator.Certificate{Name: "modern", Value: base64.StdEncoding.EncodeToString(modern)}); got != base64.StdEncoding.EncodeToString(modern) {
		t.Error("a modern PFX is not kept as it is")
	}
	if got, _ := a.certificate(emulator.Certificate{Name: "der", Value: string(modern)}); got != base64.StdEncoding.EncodeToString(modern) {
		t.Error("a PFX that is not base64 is not kept as it is")
	}
	if got, ct := a.certificate(emulator.Certificate{Name: "odd", Value: odd.String()}); got != odd.String() || ct != "application/x-pem-file" {
		t.Error("a PEM file is not kept as it is")
	}
	got, _ := a.certificate(emulator.Certificate{Name: "locked", Value: base64.StdEncoding.EncodeToString(locked), Password: "password"})
	if der, err = base64.StdEncoding.DecodeString(got); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := pkcs12.DecodeChain(der, ""); err != nil {
		t.Errorf("the password is not taken off: %v", err)
	}
	for _, name := range []string{"modern", "odd", "locked"} {
		var out struct{ Cer string }
		if err := json.Unmarshal(a.do("GET", "/certificates/"+name, "").Body.Bytes(), &out); err != nil || out.Cer != base64.StdEncoding.EncodeToString(leaf.Raw) {
			t.Errorf("%s: the certificate is not the leaf: %v", name, err)
		}
	}
	if _, err := a.PutCertificate("myvault", emulator.Certificate{Name: "bad", Value: "bm90IGEgUEZY"}); err == nil || !strings.Contains(err.Error(), "use PEM text, or a PFX") {
		t.Errorf("not a certificate: %v", err)
	}
}

func TestDisabledCertificate(t *testing.T) {
	a := newAPI(t, nil)
	a.certificate(emulator.Certificate{Name: "c", KeyType: "EC"})
	if err := a.SetEnabled("myvault", "certificates", "c", "", false); err != nil {
		t.Fatal(err)
	}
	for path, status := range map[string]int{"/certificates/c": 200, "/keys/c": 200, "/secrets/c": 403} {
		if res := a.do("GET", path, ""); res.Code != status {
			t.Errorf("%s: %d, want %d", path, res.Code, status)
		}
	}
	second, err := a.RotateCertificate("myvault", "c")
	if err != nil {
		t.Fatal(err)
	}
	if res := a.do("GET", "/secrets/c", ""); res.Code != 200 || !strings.Contains(res.Body.String(), "/secrets/c/"+second) {
		t.Errorf("the new version: %d %s", res.Code, res.Body)
	}
}

func TestPendingTakesItsTime(t *testing.T) {
	a := newAPI(t, nil)
	a.SetPolls(2, 0)
	if res := a.do("POST", "/certificates/c/create", `{"policy":{"issuer":{"name":"Self"},"key_props":{"kty":"EC"},"x509_props":{"subject":"CN=c"}}}`); res.Code != 202 || res.Header().Get("Retry-After") != "10" {
		t.Fatalf("%d %s", res.Code, res.Body)
	}
	var got []string
	for range 3 {
		var out struct{ Status string }
		if err := json.Unmarshal(a.do("GET", "/certificates/c/pending", "").Body.Bytes(), &out); err != nil {
			t.Fatal(err)
		}
		got = append(got, out.Status)
	}
	if fmt.Sprint(got) != "[inProgress inProgress completed]" {
		t.Errorf("got %v", got)
	}
	for _, bad := range []string{`{`, `{}`, `{"policy":{"x509_props":{"subject":"nobody"}}}`, `{"policy":{"key_props":{"kty":"EC"},"x509_props":{"subject":"CN=x","ekus":["a"]}}}`, `{"policy":{"key_props":{"kty":"RSA","key_size":17}}}`} {
		if res := a.do("POST", "/certificates/d/create", bad); res.Code != 400 {
			t.Errorf("%s: %d %s", bad, res.Code, res.Body)
		}
	}
}
