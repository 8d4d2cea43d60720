package tlspair_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"keymount/internal/azure/encode/encodetest"
	"keymount/internal/pfx"
	"keymount/internal/secretsync/tlspair"
)

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// Whatever holds a certificate and its key gives a pair that loads, the key in the usual form, the chain in order.
func TestPair(t *testing.T) {
	t.Attr("conformance", "12.7/tls")
	t.Parallel()
	root := encodetest.Make(t, encodetest.Template{Name: "root"})
	pair := func(algorithm string) encodetest.Pair {
		return encodetest.Make(t, encodetest.Template{Name: "leaf", Algorithm: algorithm, Issuer: &root})
	}
	rsa, ec, ed := pair(encodetest.RSA), pair(encodetest.P384), pair(encodetest.Ed25519)
	certs := func(p encodetest.Pair) [][]byte { return [][]byte{p.Certificate, root.Certificate} }
	pkcs1 := encodetest.OpenSSL(t, rsa.Key, "rsa", "-traditional")
	sec1 := encodetest.OpenSSL(t, ec.Key, "ec")
	parameters := encodetest.OpenSSL(t, nil, "ecparam", "-name", "secp384r1")
	for name, tc := range map[string]struct {
		file []byte
		of   encodetest.Pair
		kind string
	}{
		"PKCS #8 RSA":                        {join(rsa.Key, rsa.Certificate, root.Certificate), rsa, "RSA PRIVATE KEY"},
		"PKCS #1":                            {join(pkcs1, rsa.Certificate, root.Certificate), rsa, "RSA PRIVATE KEY"},
		"PKCS #8 EC":                         {join(ec.Certificate, root.Certificate, ec.Key), ec, "EC PRIVATE KEY"},
		"SEC 1":                              {join(ec.Certificate, root.Certificate, sec1), ec, "EC PRIVATE KEY"},
		"parameters before":                  {join(parameters, sec1, ec.Certificate, root.Certificate), ec, "EC PRIVATE KEY"},
		"parameters after":                   {join(sec1, parameters, ec.Certificate, root.Certificate), ec, "EC PRIVATE KEY"},
		"PKCS #1 that is said to be PKCS #8": {join(bytes.ReplaceAll(pkcs1, []byte("RSA PRIVATE"), []byte("PRIVATE")), rsa.Certificate, root.Certificate), rsa, "RSA PRIVATE KEY"},
		"parameters with headers of encrypted keys": {join(sec1, pem.EncodeToMemory(&pem.Block{Type: "DH PARAMETERS", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}}),
			ec.Certificate, root.Certificate), ec, "EC PRIVATE KEY"},
		"Ed25519":                 {join(ed.Key, ed.Certificate, root.Certificate), ed, "PRIVATE KEY"},
		"two keys: the last":      {join(rsa.Key, ec.Key, ec.Certificate, root.Certificate), ec, "EC PRIVATE KEY"},
		"CRLF":                    {bytes.ReplaceAll(join(rsa.Key, rsa.Certificate, root.Certificate), []byte("\n"), []byte("\r\n")), rsa, "RSA PRIVATE KEY"},
		"text around blocks":      {join([]byte("subject=leaf\n"), rsa.Key, []byte("\nissuer\n"), rsa.Certificate, []byte("x\n"), root.Certificate, []byte("end")), rsa, "RSA PRIVATE KEY"},
		"PKCS #12 of OpenSSL 3":   {encodetest.PFX(t, ec.Key, certs(ec)), ec, "EC PRIVATE KEY"},
		"PKCS #12 of Key Vault":   {encodetest.PFX(t, rsa.Key, certs(rsa), encodetest.Legacy()...), rsa, "RSA PRIVATE KEY"},
		"PKCS #12 as base64 text": {[]byte(base64.StdEncoding.EncodeToString(encodetest.PFX(t, rsa.Key, certs(rsa))) + "\n"), rsa, "RSA PRIVATE KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			chain, err := tlspair.Certificates(tc.file, nil)
			if err != nil || !bytes.Equal(chain, join(certs(tc.of)...)) {
				t.Errorf("certificates: %v\n%s", err, chain)
			}
			key, err := tlspair.PrivateKey(tc.file, nil)
			if err != nil {
				t.Fatal(err)
			}
			if block, rest := pem.Decode(key); block == nil || block.Type != tc.kind || len(rest) > 0 {
				t.Errorf("the key is not one %s", tc.kind)
			}
			if _, err := tls.X509KeyPair(chain, key); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	t.Attr("conformance", "10.1/8-no-empty-tls-key")
	t.Parallel()
	pair := encodetest.Make(t, encodetest.Template{Name: "x", Algorithm: encodetest.RSA})
	encrypted := encodetest.OpenSSL(t, pair.Key, "pkcs8", "-topk8", "-passout", "pass:secret")
	legacy := encodetest.OpenSSL(t, pair.Key, "rsa", "-traditional", "-aes128", "-passout", "pass:secret")
	for name, tc := range map[string]struct {
		file []byte
		take func([]byte, *pfx.Budget) ([]byte, error)
		text string
	}{
		"encrypted PKCS #8":        {join(pair.Certificate, encrypted), tlspair.PrivateKey, "encrypted"},
		"encrypted PKCS #1":        {join(pair.Certificate, legacy), tlspair.PrivateKey, "encrypted"},
		"only certificates":        {pair.Certificate, tlspair.PrivateKey, "CERTIFICATE"},
		"only a key":               {pair.Key, tlspair.Certificates, "PRIVATE KEY"},
		"neither":                  {[]byte("hunter2"), tlspair.PrivateKey, "neither PEM nor PKCS #12"},
		"empty":                    {nil, tlspair.Certificates, "neither PEM nor PKCS #12"},
		"huge":                     {make([]byte, 8<<20), tlspair.Certificates, "larger than"},
		"PKCS #12 with a password": {encodetest.PFX(t, pair.Key, [][]byte{pair.Certificate}, "-passout", "pass:secret"), tlspair.PrivateKey, "password"},
		"PKCS #12 without a key":   {encodetest.PFX(t, nil, [][]byte{pair.Certificate}), tlspair.PrivateKey, "no private key"},
		"OPENSSH":                  {pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte("hunter2")}), tlspair.PrivateKey, "OPENSSH PRIVATE KEY"},
		"an empty certificate":     {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE"}), tlspair.Certificates, "holds no certificate"},
		"damaged":                  {pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte("hunter2")}), tlspair.PrivateKey, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := tc.take(tc.file, nil)
			if err == nil || out != nil || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("got %d bytes, %v, want an error with %q", len(out), err, tc.text)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error repeats content: %v", err)
			}
		})
	}
	long := pem.EncodeToMemory(&pem.Block{Type: strings.Repeat("A\x1b", 500), Bytes: []byte{1}})
	if _, err := tlspair.PrivateKey(slices.Concat(long, long), nil); err == nil || len(err.Error()) > 200 || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("the types of blocks are not bounded and made fit for a line: %q", err)
	}
}

// A class may name many files; together they get no more time than a few of them alone.
func TestBudgetIsShared(t *testing.T) {
	t.Parallel()
	pair := encodetest.Make(t, encodetest.Template{Name: "x"})
	file := encodetest.PFX(t, pair.Key, [][]byte{pair.Certificate}, "-iter", "10000")
	work, read := pfx.NewBudget(200_000), 0
	for range 10 {
		if _, err := tlspair.PrivateKey(file, work); err == nil {
			read++
		} else if !strings.Contains(err.Error(), "more rounds of key derivation") {
			t.Fatal(err)
		}
	}
	if read == 0 || read == 10 {
		t.Errorf("%d of 10 files were read", read)
	}
}

func FuzzPair(f *testing.F) {
	pair := encodetest.Make(f, encodetest.Template{Name: "x"})
	f.Add(pair.PEM())
	f.Add(encodetest.OpenSSL(f, pair.Key, "ec"))
	f.Add(encodetest.PFX(f, pair.Key, [][]byte{pair.Certificate}, "-iter", "1"))
	f.Fuzz(func(t *testing.T, file []byte) {
		before := bytes.Clone(file)
		if chain, err := tlspair.Certificates(file, nil); err == nil {
			if block, _ := pem.Decode(chain); block == nil || block.Type != "CERTIFICATE" {
				t.Errorf("certificates are %q", chain)
			}
		}
		if key, err := tlspair.PrivateKey(file, nil); err == nil {
			block, rest := pem.Decode(key)
			if block == nil || len(rest) > 0 || !parses(block.Bytes) {
				t.Error("the key cannot be read back")
			}
		}
		if !bytes.Equal(before, file) {
			t.Error("the input was changed")
		}
	})
}

func parses(der []byte) bool {
	_, err1 := x509.ParsePKCS1PrivateKey(der)
	_, err2 := x509.ParseECPrivateKey(der)
	_, err3 := x509.ParsePKCS8PrivateKey(der)
	return err1 == nil || err2 == nil || err3 == nil
}
