package encode_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"

	"keymount/internal/azure/encode"
	"keymount/internal/azure/encode/encodetest"
)

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content []byte `asn1:"tag:0,explicit"`
}

type macless struct {
	Version  int
	AuthSafe contentInfo
}

// mergePFX puts the safes of two files without a MAC into one.
func mergePFX(t *testing.T, files ...[]byte) []byte {
	t.Helper()
	var all []asn1.RawValue
	var pdu macless
	for _, f := range files {
		var safes []asn1.RawValue
		if _, err := asn1.Unmarshal(f, &pdu); err != nil {
			t.Fatal(err)
		}
		if _, err := asn1.Unmarshal(pdu.AuthSafe.Content, &safes); err != nil {
			t.Fatal(err)
		}
		all = append(all, safes...)
	}
	var err error
	if pdu.AuthSafe.Content, err = asn1.Marshal(all); err != nil {
		t.Fatal(err)
	}
	out, err := asn1.Marshal(pdu)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDecode(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, value string
		encoding    encode.Encoding
		want        string
		err         string
	}{
		{"as it stands", "line1\nline2\n", encode.UTF8, "line1\nline2\n", ""},
		{"empty", "", encode.UTF8, "", ""},
		{"any text", "a\x00ä\u2028", encode.UTF8, "a\x00ä\u2028", ""},
		{"base64", "QmFzZTY0RW5jb2RlZFN0cmluZw==", encode.Base64, "Base64EncodedString", ""},
		{"base64 in lines", "QmFz\r\nZTY0\n", encode.Base64, "Base64", ""},
		{"base64, empty", "", encode.Base64, "", ""},
		{"base64 without padding", "QmFzZTY0RW5jb2RlZFN0cmluZw", encode.Base64, "", "illegal base64 data at input byte 24"},
		{"base64url", "-_-_", encode.Base64, "", "illegal base64 data at input byte 0"},
		{"base64 of something else", "abc#", encode.Base64, "", "illegal base64 data at input byte 3"},
		{"hex", "486578456E636F646564537472696e67", encode.Hex, "HexEncodedString", ""},
		{"hex, odd", "486", encode.Hex, "", "encoding/hex: odd length hex string"},
		{"hex of something else", "48zz", encode.Hex, "", "encoding/hex: invalid byte at input byte 2"},
		{"hex of something else, second digit", "484z", encode.Hex, "", "encoding/hex: invalid byte at input byte 3"},
		{"hex, odd and wrong", "4z4", encode.Hex, "", "encoding/hex: invalid byte at input byte 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := encode.Secret{Value: []byte(tc.value), ContentType: "application/x-pkcs12"}.Do(encode.Options{Encoding: tc.encoding, Split: true})
			if tc.err != "" {
				if err == nil || err.Error() != tc.err {
					t.Errorf("got %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || string(f.Whole) != tc.want || f.Certificates != nil || f.Key != nil {
				t.Errorf("got %q, %v", f.Whole, err)
			}
		})
	}
}

func TestPEMSecret(t *testing.T) {
	t.Parallel()
	c := encodetest.MakeChain(t)
	value := bytes.Join([][]byte{[]byte("a remark\n"), c.Root.Certificate, c.Leaf.Key, c.Leaf.Certificate, c.Int1.Certificate}, nil)
	s := encode.Secret{Value: value, ContentType: "application/x-pem-file", OfCertificate: true}
	f, err := s.Do(encode.Options{OrderChain: true})
	if err != nil || !bytes.Equal(f.Whole, value) || f.Key != nil {
		t.Errorf("not as stored: %v", err)
	}
	f, err = s.Do(encode.Options{OrderChain: true, Split: true})
	if err != nil || !bytes.Equal(f.Whole, value) || len(f.Warnings) > 0 {
		t.Errorf("split: not as stored: %v %q", err, f.Warnings)
	}
	if want := join(c.Root.Certificate, c.Leaf.Certificate, c.Int1.Certificate); string(f.Certificates) != want {
		t.Errorf("certificates are\n%s", f.Certificates)
	}
	if string(f.Key) != string(c.Leaf.Key) {
		t.Errorf("key is\n%s", f.Key)
	}
	s.Value = c.Leaf.Certificate
	if f, err = s.Do(encode.Options{Split: true}); err != nil || f.Key != nil || len(f.Warnings) != 1 {
		t.Errorf("without a key: %v, %q, %q", err, f.Key, f.Warnings)
	}
	s.Value = []byte("text")
	if f, err = s.Do(encode.Options{Split: true}); err != nil || string(f.Whole) != "text" || f.Certificates != nil || len(f.Warnings) != 2 {
		t.Errorf("without blocks: %v, %+v", err, f)
	}
}

func TestSplitPFX(t *testing.T) {
	t.Parallel()
	c := encodetest.MakeChain(t)
	pfx := encodetest.PFX(t, c.Leaf.Key, certs(c.Leaf, c.Root, c.Int1, c.Int2))
	chain := join(c.Leaf.Certificate, c.Int2.Certificate, c.Int1.Certificate, c.Root.Certificate)
	for _, tc := range []struct {
		name  string
		opt   encode.Options
		whole string
	}{
		{"pem", encode.Options{Split: true, OrderChain: true}, string(c.Leaf.Key) + chain},
		{"pfx", encode.Options{Split: true, OrderChain: true, KeepPFX: true}, string(secretOf(pfx).Value)},
		{"pfx as bytes", encode.Options{Split: true, OrderChain: true, KeepPFX: true, Encoding: encode.Base64}, string(pfx)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := secretOf(pfx).Do(tc.opt)
			if err != nil || len(f.Warnings) > 0 {
				t.Fatal(err, f.Warnings)
			}
			if string(f.Whole) != tc.whole || string(f.Certificates) != chain || string(f.Key) != string(c.Leaf.Key) {
				t.Errorf("got %d, %d, %d bytes", len(f.Whole), len(f.Certificates), len(f.Key))
			}
		})
	}
	t.Run("a PFX that cannot be read stays itself", func(t *testing.T) {
		locked := encodetest.PFX(t, c.Leaf.Key, certs(c.Leaf), "-passout", "pass:secret")
		f, err := secretOf(locked).Do(encode.Options{Split: true, KeepPFX: true, Encoding: encode.Base64})
		if err != nil || !bytes.Equal(f.Whole, locked) || f.Certificates != nil || f.Key != nil || len(f.Warnings) != 1 {
			t.Errorf("got %v, %q", err, f.Warnings)
		}
	})
}

func TestUnknownContentType(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{"", "text/plain", "application/x-pkcs12\n"} {
		_, err := encode.Secret{Value: []byte("hidden"), ContentType: contentType, OfCertificate: true}.Do(encode.Options{})
		want := "failed to get certificate. unknown content type '" + strings.ReplaceAll(contentType, "\n", "?") + "'"
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// jwk returns the public part of a key that openssl made, and what openssl says its public key is.
func jwk(t *testing.T, algorithm string) (encode.JWK, []byte) {
	t.Helper()
	private := encodetest.Key(t, algorithm)
	public := encodetest.OpenSSL(t, private, "pkey", "-pubout")
	key, err := x509.ParsePKIXPublicKey(encodetest.DER(t, public))
	if err != nil {
		t.Fatal(err)
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		return encode.JWK{Type: "RSA", N: k.N.Bytes(), E: big.NewInt(int64(k.E)).Bytes()}, public
	case *ecdsa.PublicKey:
		b, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		size := len(b) / 2
		return encode.JWK{Type: "EC", Curve: k.Params().Name, X: b[1 : 1+size], Y: b[1+size:]}, public
	}
	t.Fatalf("a key of type %T", key)
	return encode.JWK{}, nil
}

func TestPublicKey(t *testing.T) {
	t.Parallel()
	for algorithm, size := range map[string]int{encodetest.RSA: 451, encodetest.P256: 178, encodetest.P384: 215, encodetest.P521: 268} {
		k, want := jwk(t, algorithm)
		for _, suffix := range []string{"", "-HSM"} {
			k := k
			k.Type += suffix
			if got, err := k.PublicKey(); err != nil || !bytes.Equal(got, want) || len(got) != size {
				t.Errorf("%s: %d bytes, want %d: %v\n%s", k.Type, len(got), size, err, got)
			}
			k.X = append([]byte{0}, k.X...) // more zeros are the same number
			if got, err := k.PublicKey(); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s with a leading zero: %v", k.Type, err)
			}
		}
	}
}

func TestPublicKeyRefused(t *testing.T) {
	t.Parallel()
	r, _ := jwk(t, encodetest.RSA)
	e, _ := jwk(t, encodetest.P256)
	for _, tc := range []struct {
		name   string
		key    encode.JWK
		change func(*encode.JWK)
		text   string
	}{
		{"symmetric", r, func(k *encode.JWK) { k.Type = "oct-HSM" }, "failed to get key. key type 'oct-HSM' currently not supported"},
		{"symmetric, software", r, func(k *encode.JWK) { k.Type = "oct" }, "failed to get key. key type 'oct' currently not supported"},
		{"no type", r, func(k *encode.JWK) { k.Type = "" }, "failed to get key. key type '' currently not supported"},
		{"P-256K", e, func(k *encode.JWK) { k.Curve = "P-256K" }, "curve P-256K is not supported"},
		{"no curve", e, func(k *encode.JWK) { k.Curve = "" }, "curve  is not supported"},
		{"no modulus", r, func(k *encode.JWK) { k.N = nil }, "lacks its modulus or exponent"},
		{"no exponent", r, func(k *encode.JWK) { k.E = []byte{0} }, "lacks its modulus or exponent"},
		{"even exponent", r, func(k *encode.JWK) { k.E = []byte{4} }, "exponent is none"},
		{"exponent 1", r, func(k *encode.JWK) { k.E = []byte{1} }, "exponent is none"},
		{"huge exponent", r, func(k *encode.JWK) { k.E = bytes.Repeat([]byte{1}, 9) }, "exponent is none"},
		{"huge modulus", r, func(k *encode.JWK) { k.N = bytes.Repeat([]byte{1}, 1<<20) }, "modulus is none"},
		{"off the curve", e, func(k *encode.JWK) { k.Y = append([]byte{k.Y[0] ^ 1}, k.Y[1:]...) }, "the EC key is no point of curve P-256"},
		{"at infinity", e, func(k *encode.JWK) { k.X, k.Y = make([]byte, 32), make([]byte, 32) }, "the EC key is no point of curve P-256"},
		{"wrong curve", e, func(k *encode.JWK) { k.Curve = "P-384" }, "the EC key is no point of curve P-384"},
		{"long coordinate", e, func(k *encode.JWK) { k.X = bytes.Repeat([]byte{1}, 33) }, "lacks coordinates of its curve"},
		{"no coordinate", e, func(k *encode.JWK) { k.Y = nil }, "lacks coordinates of its curve"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := tc.key
			tc.change(&k)
			if got, err := k.PublicKey(); err == nil || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %s, %v, want %q", got, err, tc.text)
			}
		})
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	for _, serial := range []string{"7", "-7"} {
		pair := encodetest.Make(t, encodetest.Template{Name: "x", Serial: serial})
		if got, err := encode.Certificate(encodetest.DER(t, pair.Certificate)); err != nil || !bytes.Equal(got, pair.Certificate) {
			t.Errorf("serial %s: %v\n%s", serial, err, got)
		}
	}
	for in, text := range map[string]string{"": "certificate value is nil", "x": "the certificate is not DER", "\x30\x00\x00": "the certificate is not DER"} {
		if _, err := encode.Certificate([]byte(in)); err == nil || err.Error() != text {
			t.Errorf("%q gives %v, want %q", in, err, text)
		}
	}
}

func FuzzSecret(f *testing.F) {
	pair := encodetest.Make(f, encodetest.Template{Name: "x"})
	other := encodetest.Make(f, encodetest.Template{Name: "y", Issuer: &pair})
	few := []string{"-iter", "1"}
	f.Add(encodetest.PFX(f, pair.Key, certs(pair, other), few...), uint8(0b1011))
	f.Add(encodetest.PFX(f, pair.Key, certs(pair, other), append(few, "-certpbe", "NONE", "-keypbe", "NONE", "-nomac")...), uint8(0b1010))
	f.Add(encodetest.PFX(f, nil, certs(other, pair), append(few, "-certpbe", "PBE-SHA1-3DES")...), uint8(0b1111))
	f.Add(pair.PEM(), uint8(0b0010))
	f.Add([]byte("48656c6c6f"), uint8(0b10000))
	f.Fuzz(func(t *testing.T, value []byte, how uint8) {
		s := encode.Secret{Value: value, ContentType: "application/x-pem-file", OfCertificate: how&16 == 0}
		if how&8 != 0 {
			s.ContentType, s.Value = "application/x-pkcs12", []byte(base64.StdEncoding.EncodeToString(value))
		}
		before := bytes.Clone(s.Value)
		opt := encode.Options{OrderChain: how&1 != 0, Split: how&2 != 0, KeepPFX: how&4 != 0, Encoding: encode.Encoding(how >> 5 % 3)}
		files, err := s.Do(opt)
		if !bytes.Equal(before, s.Value) {
			t.Error("the input was changed")
		}
		if err != nil {
			return
		}
		// What comes out in PEM reads back as such, and nothing was lost or made up in a split.
		if how&8 != 0 && s.OfCertificate && opt.Split && !opt.KeepPFX && opt.Encoding == encode.UTF8 {
			if got := len(files.Certificates) + len(files.Key); got != len(files.Whole) {
				t.Errorf("split into %d bytes of %d", got, len(files.Whole))
			}
		}
		k := encode.JWK{Type: "EC", Curve: "P-256", X: value, Y: value}
		k.PublicKey()
		k.Type, k.N, k.E = "RSA", value, value
		k.PublicKey()
		encode.Certificate(value)
	})
}
