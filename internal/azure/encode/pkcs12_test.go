package encode_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	pkcs12 "software.sslmate.com/src/go-pkcs12"

	"keymount/internal/azure/encode"
	"keymount/internal/azure/encode/encodetest"
	"keymount/internal/pfx"
)

// convert returns what a class sees that asks for the certificate as a secret, with the provider's default flags.
func convert(t *testing.T, pfx []byte) encode.Files {
	t.Helper()
	f, err := secretOf(pfx).Do(encode.Options{OrderChain: true})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func secretOf(pfx []byte) encode.Secret {
	return encode.Secret{Value: []byte(base64.StdEncoding.EncodeToString(pfx)), ContentType: "application/x-pkcs12", OfCertificate: true}
}

func join(parts ...[]byte) string { return string(bytes.Join(parts, nil)) }

func certs(pairs ...encodetest.Pair) [][]byte {
	var out [][]byte
	for _, p := range pairs {
		out = append(out, p.Certificate)
	}
	return out
}

// Whatever openssl can make of a key and certificates comes back as exactly the PEM that it was made from.
func TestPFXOfOpenSSL(t *testing.T) {
	t.Parallel()
	root := encodetest.Make(t, encodetest.Template{Name: "root", Algorithm: encodetest.RSA})
	pair := encodetest.Make(t, encodetest.Template{Name: "leaf", Algorithm: encodetest.RSA, Issuer: &root})
	want := join(pair.Key, pair.Certificate, root.Certificate)
	for name, args := range map[string][]string{
		"as Key Vault does":      encodetest.Legacy(),
		"as OpenSSL 3 does":      nil,
		"AES-128, SHA-512":       {"-certpbe", "AES-128-CBC", "-keypbe", "AES-192-CBC", "-macalg", "sha512"},
		"AES-256, SHA-384":       {"-certpbe", "AES-256-CBC", "-keypbe", "AES-256-CBC", "-macalg", "sha384"},
		"PBES2 with 3DES":        {"-certpbe", "DES-EDE3-CBC", "-keypbe", "DES-EDE3-CBC", "-macalg", "sha224"},
		"no MAC":                 {"-nomac"},
		"2-key 3DES":             {"-certpbe", "PBE-SHA1-2DES", "-keypbe", "PBE-SHA1-2DES", "-macalg", "sha1"},
		"RC2-128":                {"-legacy", "-certpbe", "PBE-SHA1-RC2-128", "-keypbe", "PBE-SHA1-RC2-128", "-macalg", "sha1"},
		"RC2-40":                 {"-legacy", "-certpbe", "PBE-SHA1-RC2-40", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1", "-nomaciter"},
		"nothing encrypted":      {"-certpbe", "NONE", "-keypbe", "NONE"},
		"many rounds":            {"-iter", "100000"},
		"attributes":             {"-name", "größer", "-CSP", "Microsoft RSA SChannel", "-LMK", "-caname", "its root"},
		"attributes, unreadable": {"-certpbe", "NONE", "-keypbe", "NONE", "-nomac", "-LMK"},
	} {
		t.Run(name, func(t *testing.T) {
			pfx := encodetest.PFX(t, pair.Key, certs(pair, root), args...)
			if got := convert(t, pfx); string(got.Whole) != want || len(got.Warnings) > 0 {
				t.Errorf("got\n%s(%q), want\n%s", got.Whole, got.Warnings, want)
			}
		})
	}
}

func TestPFXKinds(t *testing.T) {
	t.Parallel()
	make := func(algorithm string) encodetest.Pair {
		return encodetest.Make(t, encodetest.Template{Name: "x", Algorithm: algorithm})
	}
	negative := encodetest.Make(t, encodetest.Template{Name: "negative", Serial: "-5"})
	for name, pair := range map[string]encodetest.Pair{
		"P-256": make(encodetest.P256), "P-384": make(encodetest.P384), "P-521": make(encodetest.P521),
		"Ed25519": make(encodetest.Ed25519), "P-256K, which Go does not read": make(encodetest.P256K), "negative serial": negative,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := convert(t, encodetest.PFX(t, pair.Key, certs(pair), encodetest.Legacy()...))
			if string(got.Whole) != join(pair.Key, pair.Certificate) || len(got.Warnings) > 0 {
				t.Errorf("got\n%s%q", got.Whole, got.Warnings)
			}
		})
	}
	t.Run("non-exportable: one safe, certificates only", func(t *testing.T) {
		got := convert(t, encodetest.PFX(t, nil, certs(negative), encodetest.Legacy()...))
		if string(got.Whole) != string(negative.Certificate) || len(got.Warnings) > 0 {
			t.Errorf("got\n%s%q", got.Whole, got.Warnings)
		}
	})
	t.Run("key only", func(t *testing.T) {
		got := convert(t, encodetest.PFX(t, negative.Key, nil, "-nocerts"))
		if string(got.Whole) != string(negative.Key) || len(got.Warnings) != 1 {
			t.Errorf("got\n%s%q", got.Whole, got.Warnings)
		}
	})
}

// The library's writer is another one still, with passwordless and PBMAC1 files.
func TestPFXOfGoPKCS12(t *testing.T) {
	t.Parallel()
	pair := encodetest.Make(t, encodetest.Template{Name: "x", Algorithm: encodetest.P384})
	key, err := x509.ParsePKCS8PrivateKey(encodetest.DER(t, pair.Key))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(encodetest.DER(t, pair.Certificate))
	if err != nil {
		t.Fatal(err)
	}
	for name, encoder := range map[string]*pkcs12.Encoder{"LegacyRC2": pkcs12.LegacyRC2, "LegacyDES": pkcs12.LegacyDES,
		"Modern2023": pkcs12.Modern2023, "Modern2026": pkcs12.Modern2026, "Passwordless": pkcs12.Passwordless} {
		t.Run(name, func(t *testing.T) {
			pfx, err := encoder.Encode(key, cert, nil, "")
			if err != nil {
				t.Fatal(err)
			}
			if got := convert(t, pfx).Whole; string(got) != join(pair.Key, pair.Certificate) {
				t.Errorf("got\n%s", got)
			}
			trust, err := encoder.EncodeTrustStore([]*x509.Certificate{cert}, "")
			if err != nil {
				t.Fatal(err)
			}
			if got := convert(t, trust).Whole; string(got) != string(pair.Certificate) {
				t.Errorf("trust store gives\n%s", got)
			}
		})
	}
}

func TestPFXRefused(t *testing.T) {
	t.Parallel()
	pair := encodetest.Make(t, encodetest.Template{Name: "x"})
	for name, tc := range map[string]struct {
		pfx  []byte
		text string
	}{
		"password":         {encodetest.PFX(t, pair.Key, certs(pair), "-passout", "pass:secret"), "protected by a password"},
		"password, no MAC": {encodetest.PFX(t, pair.Key, certs(pair), "-passout", "pass:secret", "-nomac"), "protected by a password"},
		"rounds":           {manyRounds(t, encodetest.PFX(t, pair.Key, certs(pair), "-iter", "77777", "-nomac")), "more rounds of key derivation"},
		"not PKCS #12":     {encodetest.DER(t, pair.Certificate), "it is not PKCS #12 in DER"},
		"cut":              {encodetest.PFX(t, pair.Key, certs(pair))[:500], "it is not PKCS #12 in DER"},
		"empty":            {nil, "it is not PKCS #12 in DER"},
		"large":            {make([]byte, 2<<20), "it is larger than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := secretOf(tc.pfx).Do(encode.Options{OrderChain: true})
			if err == nil || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want %q", err, tc.text)
			}
		})
	}
	_, err := encode.Secret{Value: []byte("not base64!"), ContentType: "application/x-pkcs12", OfCertificate: true}.Do(encode.Options{})
	if err == nil || !strings.Contains(err.Error(), "illegal base64 data at input byte 3") {
		t.Errorf("got %v", err)
	}
}

// A class may name a thousand files; together they get no more time than a few of them alone.
func TestBudgetIsShared(t *testing.T) {
	t.Parallel()
	pair := encodetest.Make(t, encodetest.Template{Name: "x"})
	file := encodetest.PFX(t, pair.Key, certs(pair), "-iter", "10000")
	budget := pfx.NewBudget(200_000)
	worked := 0
	for range 10 {
		_, err := secretOf(file).Do(encode.Options{Budget: budget})
		if err == nil {
			worked++
		} else if !strings.Contains(err.Error(), "more rounds of key derivation") {
			t.Fatal(err)
		}
	}
	if worked == 0 || worked == 10 {
		t.Errorf("%d of 10 files were read", worked)
	}
}

func TestPFXOfTooManyOrTooLargeKeys(t *testing.T) {
	t.Parallel()
	pair := encodetest.Make(t, encodetest.Template{Name: "x"})
	one := pfxInOrder(t, pair.Key, certs(pair))
	eight, nine := slices.Repeat([][]byte{one}, 8), slices.Repeat([][]byte{one}, 9)
	if got := convert(t, mergePFX(t, eight...)).Whole; bytes.Count(got, []byte("BEGIN PRIVATE")) != 8 {
		t.Errorf("got\n%s", got)
	}
	if _, err := secretOf(mergePFX(t, nine...)).Do(encode.Options{}); err == nil || !strings.Contains(err.Error(), "more than 8 keys") {
		t.Errorf("got %v", err)
	}
}

// manyRounds turns the count 77777 of a file into one that would keep a core busy for an hour.
func manyRounds(t *testing.T, pfx []byte) []byte {
	t.Helper()
	before, after := []byte{2, 3, 0x01, 0x2f, 0xd1}, []byte{2, 3, 0x7f, 0xff, 0xff}
	if !bytes.Contains(pfx, before) {
		t.Fatal("the file's count of rounds was not found")
	}
	return bytes.ReplaceAll(pfx, before, after)
}

func TestChain(t *testing.T) {
	t.Parallel()
	c := encodetest.MakeChain(t)
	crossRoot := encodetest.Make(t, encodetest.Template{Name: "other root"})
	crossed := encodetest.Make(t, encodetest.Template{Name: "root", Key: c.Root.Key, Issuer: &crossRoot})
	byName := map[string]encodetest.Pair{"leaf": c.Leaf, "int2": c.Int2, "int1": c.Int1, "root": c.Root, "crossed": crossed, "crossRoot": crossRoot}
	// Each signed the other, so that neither is the first.
	circleA := encodetest.Make(t, encodetest.Template{Name: "a"})
	circleB := encodetest.Make(t, encodetest.Template{Name: "b", Issuer: &circleA})
	byName["circleA"] = encodetest.Make(t, encodetest.Template{Name: "a", Key: circleA.Key, Issuer: &circleB})
	byName["circleB"] = circleB
	byName["circleLeaf"] = encodetest.Make(t, encodetest.Template{Name: "below a circle", Issuer: &circleA})
	noIDRoot := encodetest.Make(t, encodetest.Template{Name: "plain root", NoKeyIDs: true})
	noIDLeaf := encodetest.Make(t, encodetest.Template{Name: "plain leaf", NoKeyIDs: true, Issuer: &noIDRoot, Serial: "-7"})
	byName["plainRoot"], byName["plainLeaf"] = noIDRoot, noIDLeaf
	byName["k256Root"] = encodetest.Make(t, encodetest.Template{Name: "k root", Algorithm: encodetest.P256K})
	k256Root := byName["k256Root"]
	byName["k256Leaf"] = encodetest.Make(t, encodetest.Template{Name: "k leaf", Algorithm: encodetest.P256K, Issuer: &k256Root})
	for _, tc := range []struct{ key, in, want string }{
		{"leaf", "leaf root int1 int2", "leaf int2 int1 root"},
		{"leaf", "root int1 int2 leaf", "leaf int2 int1 root"},
		{"leaf", "int1 leaf int2", "leaf int2 int1"}, // the root need not be there
		{"leaf", "leaf root", ""},
		{"leaf", "root leaf", ""},
		{"leaf", "leaf crossed int2 crossRoot root int1", "leaf int2 int1 crossed crossRoot root"},
		{"leaf", "leaf leaf int2", ""},
		{"leaf", "circleA circleB leaf", ""},
		{"circleB", "circleA circleB", "circleB circleA"}, // the key tells where it begins
		{"", "circleA circleB", ""},
		{"circleLeaf", "circleLeaf circleA circleB", ""},
		{"plainLeaf", "plainRoot plainLeaf", "plainLeaf plainRoot"},
		{"k256Leaf", "k256Root k256Leaf", "k256Leaf k256Root"},
		{"root", "root", "root"},
		{"int1", "root int1 int2 leaf", ""}, // the key is not the leaf's
		{"", "root int1 int2 leaf", "leaf int2 int1 root"},
	} {
		t.Run(tc.key+": "+tc.in, func(t *testing.T) {
			warnings := 0
			if tc.want == "" {
				tc.want, warnings = tc.in, 1
			}
			expand := func(names string) (all [][]byte) {
				for name := range strings.FieldsSeq(names) {
					all = append(all, byName[name].Certificate)
				}
				return all
			}
			key := byName[tc.key].Key
			got := convert(t, pfxInOrder(t, key, expand(tc.in)))
			if want := join(append([][]byte{key}, expand(tc.want)...)...); string(got.Whole) != want {
				t.Errorf("got %s, want %s", names(t, got.Whole), tc.want)
			}
			if len(got.Warnings) != warnings {
				t.Errorf("warnings %q, want %d", got.Warnings, warnings)
			}
			for _, w := range got.Warnings {
				if !strings.HasPrefix(w, "certificate chain is not complete due to missing intermediate/root certificates in the cert from key vault") {
					t.Errorf("warning %q", w)
				}
			}
			unordered, err := secretOf(pfxInOrder(t, key, expand(tc.in))).Do(encode.Options{})
			if err != nil || len(unordered.Warnings) > 0 {
				t.Errorf("without ordering: %v, %q", err, unordered.Warnings)
			}
			if want := join(append([][]byte{key}, expand(tc.in)...)...); string(unordered.Whole) != want {
				t.Errorf("without ordering: got %s, want %s", names(t, unordered.Whole), tc.in)
			}
		})
	}
}

// pfxInOrder has two safes, of certificates in exactly the given order and of the key. (openssl puts the certificate of
// the key first, so the key's safe is taken from a file of its own.)
func pfxInOrder(t *testing.T, key []byte, certificates [][]byte) []byte {
	t.Helper()
	plain := []string{"-certpbe", "NONE", "-keypbe", "NONE", "-nomac"}
	all := encodetest.PFX(t, nil, certificates, plain...)
	if key == nil {
		return all
	}
	return mergePFX(t, all, encodetest.PFX(t, key, nil, append(plain, "-nocerts")...))
}

func names(t *testing.T, text []byte) string {
	t.Helper()
	var out []string
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		name := block.Type
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			name = c.Subject.CommonName
		}
		out = append(out, name)
	}
	return fmt.Sprint(out)
}
