// Package encodetest makes keys, certificates and PKCS #12 files for tests by the openssl program, so that what converts
// them is never compared with itself.
//
// It owns the way to run openssl, imports nothing of this module, and is for tests only. A missing program fails the test
// with one line that says what to install. Its functions may run in parallel tests.
package encodetest

import (
	"bytes"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// OpenSSL runs openssl with arguments and input and returns what it prints.
func OpenSSL(t testing.TB, stdin []byte, args ...string) []byte {
	t.Helper()
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("this test needs the openssl program: apt-get install openssl")
	}
	cmd := exec.Command(program, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

// A Pair is a certificate with its key, both PEM, the key as PKCS #8.
type Pair struct{ Key, Certificate []byte }

// PEM returns the key and then the certificate, as Key Vault stores a certificate with PEM content.
func (p Pair) PEM() []byte { return bytes.Join([][]byte{p.Key, p.Certificate}, nil) }

// A Template says what certificate to make.
type Template struct {
	Name string
	// Algorithm are arguments of openssl genpkey; "" gives P-256.
	Algorithm string
	// Key is used instead of a new one where set.
	Key []byte
	// Issuer signs; nil makes a self-signed certificate.
	Issuer *Pair
	// Serial is a decimal number; "" is a random one.
	Serial string
	// NoKeyIDs leaves the key identifiers out.
	NoKeyIDs bool
}

const (
	RSA     = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048"
	P256    = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"
	P384    = "-algorithm EC -pkeyopt ec_paramgen_curve:P-384"
	P521    = "-algorithm EC -pkeyopt ec_paramgen_curve:P-521"
	P256K   = "-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1"
	Ed25519 = "-algorithm ED25519"
)

// Key makes a private key.
func Key(t testing.TB, algorithm string) []byte {
	t.Helper()
	return OpenSSL(t, nil, append([]string{"genpkey"}, strings.Fields(algorithm)...)...)
}

// Make makes a certificate.
func Make(t testing.TB, c Template) Pair {
	t.Helper()
	key := c.Key
	if key == nil {
		if c.Algorithm == "" {
			c.Algorithm = P256
		}
		key = Key(t, c.Algorithm)
	}
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	args := []string{"req", "-x509", "-new", "-days", "30", "-subj", "/CN=" + c.Name, "-addext", "basicConstraints=critical,CA:TRUE",
		"-key", write("key.pem", key), "-config", write("req.cnf", []byte("[req]\ndistinguished_name=dn\n[dn]\n"))}
	if c.Serial != "" {
		args = append(args, "-set_serial", c.Serial)
	}
	ids := []string{"-addext", "subjectKeyIdentifier=hash", "-addext", "authorityKeyIdentifier=keyid"}
	if c.NoKeyIDs {
		ids = []string{"-addext", "subjectKeyIdentifier=none", "-addext", "authorityKeyIdentifier=none"}
	}
	args = append(args, ids...)
	if c.Issuer != nil {
		args = append(args, "-CA", write("ca.pem", c.Issuer.Certificate), "-CAkey", write("ca.key", c.Issuer.Key))
	}
	return Pair{Key: key, Certificate: OpenSSL(t, nil, args...)}
}

// A Chain is a leaf, two intermediates and a root: the root issued Int1, which issued Int2, which issued the leaf.
type Chain struct{ Leaf, Int2, Int1, Root Pair }

// MakeChain makes a Chain of P-256 keys.
func MakeChain(t testing.TB) Chain {
	t.Helper()
	var c Chain
	c.Root = Make(t, Template{Name: "root"})
	c.Int1 = Make(t, Template{Name: "int1", Issuer: &c.Root})
	c.Int2 = Make(t, Template{Name: "int2", Issuer: &c.Int1})
	c.Leaf = Make(t, Template{Name: "leaf", Issuer: &c.Int2})
	return c
}

// PFX makes a PKCS #12 file (DER) with an empty password of a key, which may be nil, and certificates in the given order.
// More arguments are those of openssl pkcs12; without any the file is as OpenSSL 3 makes it: PBES2 and SHA-256.
func PFX(t testing.TB, key []byte, certificates [][]byte, args ...string) []byte {
	t.Helper()
	in := bytes.Join(certificates, nil)
	all := []string{"pkcs12", "-export", "-passout", "pass:"}
	if key == nil {
		all = append(all, "-nokeys")
	} else {
		file := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(file, key, 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, "-inkey", file)
	}
	return OpenSSL(t, in, append(all, args...)...)
}

// Legacy are arguments for PFX that make the file as Key Vault does: SHA-1 and triple DES.
func Legacy() []string {
	return []string{"-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1", "-iter", "2000"}
}

// DER returns the bytes of the first PEM block.
func DER(t testing.TB, text []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("this is not PEM")
	}
	return block.Bytes
}
