package azure_test

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keymount/internal/azure"
	"keymount/internal/azure/encode/encodetest"
	"keymount/internal/emulator"
)

const (
	pemType = "application/x-pem-file"
	pfxType = "application/x-pkcs12"
)

func row(t *testing.T, id string, test func(t *testing.T)) {
	t.Helper()
	t.Run(id, func(t *testing.T) {
		t.Attr("conformance", id)
		test(t)
	})
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func text(pfx []byte) string { return base64.StdEncoding.EncodeToString(pfx) }

func TestTableOfSecrets(t *testing.T) {
	t.Parallel()
	r := start(t)
	for _, tc := range []struct{ id, value, encoding, want string }{
		{"3.7/secret-plain", "test", "", "test"},
		{"3.7/secret-base64", "QmFzZTY0RW5jb2RlZFN0cmluZw==", "base64", "Base64EncodedString"},
		{"3.7/secret-hex", "486578456E636F646564537472696E67", "hex", "HexEncodedString"},
		{"3.7/secret-trailing-newline", "line1\nline2\n", "", "line1\nline2\n"},
		{"3.7/secret-empty", "", "", ""},
		{"3.7/secret-nul-non-ascii", "nul \x00, größer, 漢字, 😀\x1f", "", "nul \x00, größer, 漢字, 😀\x1f"},
	} {
		row(t, tc.id, func(t *testing.T) {
			name := strings.ReplaceAll(tc.id[4:], "/", "-")
			version := r.PutSecret(vaultName, name, tc.value)
			b := r.mount(t, array(entry("secret", name, "objectEncoding: \""+tc.encoding+"\"")))
			check(t, b, want{path: name, id: "secret/" + name, version: version, contents: []byte(tc.want)})
			if len(version) != 32 {
				t.Errorf("version %q", version)
			}
		})
	}
	row(t, "3.7/pfx-in-plain-secret", func(t *testing.T) {
		pair := encodetest.Make(t, encodetest.Template{Name: "plain"})
		value := text(encodetest.PFX(t, pair.Key, [][]byte{pair.Certificate}, encodetest.Legacy()...))
		version, err := r.Server.PutSecret(vaultName, emulator.Secret{Name: "appservice",
			SecretVersion: emulator.SecretVersion{Value: value, ContentType: pfxType}})
		if err != nil {
			t.Fatal(err)
		}
		check(t, r.mount(t, array(entry("secret", "appservice"))),
			want{path: "appservice", id: "secret/appservice", version: version, contents: []byte(value)})
	})
	row(t, "3.7/same-alias", func(t *testing.T) {
		r.PutSecret(vaultName, "one", "1")
		r.PutSecret(vaultName, "two", "2")
		r.Server.ResetRequests()
		_, err := r.Fetch(t.Context(), r.request(array(entry("secret", "one", "objectAlias: same"), entry("secret", "two", "objectAlias: same"))))
		for _, named := range []string{"parameters.objects.array[0] (secret/one)", "parameters.objects.array[1] (secret/two)", "are both the file same"} {
			if err == nil || !strings.Contains(err.Error(), named) {
				t.Errorf("%v does not say %q", err, named)
			}
		}
		if n := r.Requests().Total(); n != 0 {
			t.Errorf("%d requests were made", n)
		}
	})
}

func TestTableOfKeys(t *testing.T) {
	t.Parallel()
	r := start(t)
	for _, tc := range []struct {
		id, kind, algorithm string
		size                int
	}{
		{"3.7/key-rsa", "RSA", encodetest.RSA, 451},
		{"3.7/key-rsa-hsm", "RSA-HSM", encodetest.RSA, 451},
		{"3.7/key-p256", "EC", encodetest.P256, 178},
		{"3.7/key-p384", "EC-HSM", encodetest.P384, 215},
		{"3.7/key-p521", "EC", encodetest.P521, 268},
	} {
		row(t, tc.id, func(t *testing.T) {
			public := encodetest.OpenSSL(t, encodetest.Key(t, tc.algorithm), "pkey", "-pubout")
			name := tc.id[4:]
			version, err := r.Server.PutKey(vaultName, emulator.Key{Name: name, Type: tc.kind, PublicKey: string(public)})
			if err != nil {
				t.Fatal(err)
			}
			check(t, r.mount(t, array(entry("key", name))), want{path: name, id: "key/" + name, version: version, contents: public})
			if len(public) != tc.size {
				t.Errorf("%d bytes, want %d", len(public), tc.size)
			}
		})
	}
}

func TestTableOfCertificates(t *testing.T) {
	t.Parallel()
	r := start(t)
	pair := encodetest.Make(t, encodetest.Template{Name: "pair", Algorithm: encodetest.RSA})
	pfx := encodetest.PFX(t, pair.Key, [][]byte{pair.Certificate}, encodetest.Legacy()...)
	pemVersion := r.certificate(t, "pemcert1", string(pair.PEM()))
	pfxVersion := r.certificate(t, "pkcs12cert1", text(pfx))

	row(t, "3.7/cert", func(t *testing.T) {
		for name, version := range map[string]string{"pemcert1": pemVersion, "pkcs12cert1": pfxVersion} {
			check(t, r.mount(t, array(entry("cert", name))), want{path: name, id: "cert/" + name, version: version, contents: pair.Certificate})
		}
	})
	row(t, "3.7/secret-pem", func(t *testing.T) {
		check(t, r.mount(t, array(entry("secret", "pemcert1"))),
			want{path: "pemcert1", id: "secret/pemcert1", version: pemVersion, contents: pair.PEM()})
	})
	row(t, "3.7/secret-pkcs12", func(t *testing.T) {
		check(t, r.mount(t, array(entry("secret", "pkcs12cert1"))),
			want{path: "pkcs12cert1", id: "secret/pkcs12cert1", version: pfxVersion, contents: pair.PEM()})
	})
	row(t, "3.7/secret-pkcs12-pfx", func(t *testing.T) {
		check(t, r.mount(t, array(entry("secret", "pkcs12cert1", "objectFormat: pfx"))),
			want{path: "pkcs12cert1", id: "secret/pkcs12cert1", version: pfxVersion, contents: []byte(text(pfx))})
	})
	row(t, "3.7/secret-pkcs12-pfx-base64", func(t *testing.T) {
		b := r.mount(t, array(entry("secret", "pkcs12cert1", "objectFormat: PFX", "objectEncoding: base64")))
		check(t, b, want{path: "pkcs12cert1", id: "secret/pkcs12cert1", version: pfxVersion, contents: pfx})
		opened := encodetest.OpenSSL(t, b.Files[0].Contents, "pkcs12", "-nodes", "-passin", "pass:")
		if !bytes.Contains(opened, pair.Certificate) || !bytes.Contains(opened, pair.Key) {
			t.Error("openssl finds something else in it")
		}
	})
	row(t, "3.7/secret-ec", func(t *testing.T) {
		ec := encodetest.Make(t, encodetest.Template{Name: "ec", Algorithm: encodetest.P256})
		version := r.certificate(t, "ecccert1", text(encodetest.PFX(t, ec.Key, [][]byte{ec.Certificate}, encodetest.Legacy()...)))
		check(t, r.mount(t, array(entry("secret", "ecccert1"))), want{path: "ecccert1", id: "secret/ecccert1", version: version, contents: ec.PEM()})
	})
	row(t, "3.7/pfx-modern", func(t *testing.T) {
		modern := encodetest.PFX(t, pair.Key, [][]byte{pair.Certificate})
		if about := encodetest.OpenSSL(t, modern, "asn1parse", "-inform", "DER"); !bytes.Contains(about, []byte(":sha256")) {
			t.Fatal("openssl did not make a modern file")
		}
		version := r.ofCertificate(t, "modern", pfxType, text(modern))
		check(t, r.mount(t, array(entry("secret", "modern"))), want{path: "modern", id: "secret/modern", version: version, contents: pair.PEM()})
	})
}

func TestTableOfChains(t *testing.T) {
	t.Parallel()
	r := start(t)
	c := encodetest.MakeChain(t)
	for _, tc := range []struct {
		id       string
		in, want [][]byte // of certificates
		subjects string
		warnings int
	}{
		{"3.7/pfx-chain", [][]byte{c.Leaf.Certificate, c.Root.Certificate, c.Int1.Certificate, c.Int2.Certificate},
			[][]byte{c.Leaf.Certificate, c.Int2.Certificate, c.Int1.Certificate, c.Root.Certificate}, "leaf int2 int1 root", 0},
		{"3.7/pfx-chain-incomplete", [][]byte{c.Leaf.Certificate, c.Root.Certificate}, [][]byte{c.Leaf.Certificate, c.Root.Certificate}, "leaf root", 1},
	} {
		row(t, tc.id, func(t *testing.T) {
			name := tc.id[4:]
			version := r.certificate(t, name, text(encodetest.PFX(t, c.Leaf.Key, tc.in, encodetest.Legacy()...)))
			whole := append(bytes.Clone(c.Leaf.Key), join(tc.want...)...)
			b := r.mount(t, array(entry("secret", name)))
			check(t, b, want{path: name, id: "secret/" + name, version: version, contents: whole})
			if got := subjects(t, b.Files[0].Contents); got != tc.subjects {
				t.Errorf("openssl says that the certificates are %s, want %s", got, tc.subjects)
			}
			// The protocol has no place for warnings: the server logs them, and in the process they are in the bundle.
			inner, err := r.inner.Fetch(t.Context(), r.request(array(entry("secret", name))))
			if err != nil || len(inner.Warnings) != tc.warnings {
				t.Errorf("warnings %q, %v, want %d", inner.Warnings, err, tc.warnings)
			}
			for _, w := range inner.Warnings {
				if !strings.Contains(w, "secret/"+name+" of vault "+vaultName) || !strings.Contains(w, "certificate chain is not complete") {
					t.Errorf("warning %q", w)
				}
			}
		})
	}
	row(t, "3.7/pem-chain-order", func(t *testing.T) {
		value := join(c.Leaf.Key, c.Root.Certificate, c.Leaf.Certificate, c.Int1.Certificate, c.Int2.Certificate)
		version := r.ofCertificate(t, "pemorder", pemType, string(value))
		check(t, r.mount(t, array(entry("secret", "pemorder"))), want{path: "pemorder", id: "secret/pemorder", version: version, contents: value})
	})
}

// subjects are the names of the certificates in a PEM text, in order, as openssl reads them.
func subjects(t *testing.T, text []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "certs.pem")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	bundle := encodetest.OpenSSL(t, nil, "crl2pkcs7", "-nocrl", "-certfile", file)
	var names []string
	for line := range strings.Lines(string(encodetest.OpenSSL(t, bundle, "pkcs7", "-print_certs", "-noout"))) {
		if name, ok := strings.CutPrefix(line, "subject="); ok {
			names = append(names, strings.TrimPrefix(strings.ReplaceAll(strings.TrimSpace(name), " ", ""), "CN="))
		}
	}
	return strings.Join(names, " ")
}

func split(cfg *azure.Config) { cfg.WriteCertAndKeyInSeparateFiles = true }

func TestTableOfSplits(t *testing.T) {
	t.Parallel()
	r := start(t, split)
	c := encodetest.MakeChain(t)
	all := join(c.Leaf.Certificate, c.Int2.Certificate, c.Int1.Certificate, c.Root.Certificate)
	pfx := encodetest.PFX(t, c.Leaf.Key, [][]byte{c.Leaf.Certificate, c.Root.Certificate, c.Int1.Certificate, c.Int2.Certificate})
	three := func(path, id, version string, whole []byte) []want {
		return []want{
			{path: path + ".crt", id: id, version: version, contents: all},
			{path: path + ".key", id: id, version: version, contents: c.Leaf.Key},
			{path: path, id: id, version: version, contents: whole},
		}
	}
	pemVersion := r.ofCertificate(t, "insideout", pemType, string(join(all, c.Leaf.Key)))
	pfxVersion := r.ofCertificate(t, "pfx", pfxType, text(pfx))
	row(t, "3.7/split", func(t *testing.T) {
		check(t, r.mount(t, array(entry("secret", "insideout", "objectAlias: tls/cert", "filePermission: \"0400\""))),
			withMode(0o400, three("tls/cert", "secret/insideout", pemVersion, join(all, c.Leaf.Key)))...)
		check(t, r.mount(t, array(entry("secret", "pfx"))), three("pfx", "secret/pfx", pfxVersion, join(c.Leaf.Key, all))...)
		check(t, r.mount(t, array(entry("secret", "pfx", "objectFormat: pfx"))), three("pfx", "secret/pfx", pfxVersion, []byte(text(pfx)))...)
		check(t, r.mount(t, array(entry("secret", "pfx", "objectFormat: pfx", "objectEncoding: base64"))), three("pfx", "secret/pfx", pfxVersion, pfx)...)
		plain := r.PutSecret(vaultName, "plain", "x")
		check(t, r.mount(t, array(entry("secret", "plain"))), want{path: "plain", id: "secret/plain", version: plain, contents: []byte("x")})
	})
	t.Run("a certificate without an exportable key has no key file", func(t *testing.T) {
		version := r.ofCertificate(t, "nokey", pfxType, text(encodetest.PFX(t, nil, [][]byte{c.Leaf.Certificate}, encodetest.Legacy()...)))
		check(t, r.mount(t, array(entry("secret", "nokey"))),
			want{path: "nokey.crt", id: "secret/nokey", version: version, contents: c.Leaf.Certificate},
			want{path: "nokey", id: "secret/nokey", version: version, contents: c.Leaf.Certificate})
	})
	t.Run("a split file in the way of another object", func(t *testing.T) {
		r.PutSecret(vaultName, "other", "x")
		_, err := r.Fetch(t.Context(), r.request(array(entry("secret", "pfx"), entry("secret", "other", "objectAlias: pfx.key"))))
		for _, named := range []string{"array[0] (secret/pfx)", "array[1] (secret/other)", "are both the file pfx.key"} {
			if err == nil || !strings.Contains(err.Error(), named) {
				t.Errorf("%v does not say %q", err, named)
			}
		}
	})
	row(t, "3.7/split-history", func(t *testing.T) {
		var wants []want
		now := time.Now()
		for i := range 3 { // stored oldest first
			version, err := r.Server.PutSecret(vaultName, emulator.Secret{Name: "hist", SecretVersion: emulator.SecretVersion{
				Value: string(join(c.Leaf.Key, all)), ContentType: pemType, Managed: true, KID: "keys/hist/" + strings.Repeat("0", 32),
				Created: now.Add(time.Duration(i) * time.Minute)}})
			if err != nil {
				t.Fatal(err)
			}
			index := string(rune('0' + 2 - i))
			wants = append(three("hist/"+index, "secret/hist/"+index, version, join(c.Leaf.Key, all)), wants...)
		}
		check(t, r.mount(t, array(entry("secret", "hist", "objectVersionHistory: 2"))), wants[:6]...)
	})
}

func withMode(mode fs.FileMode, wants []want) []want {
	for i := range wants {
		wants[i].mode = mode
	}
	return wants
}
