package token_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/token"
)

// A signature that the API server did not make proves nothing, whatever the header says.
func TestSignaturesThatProveNothing(t *testing.T) {
	type m = map[string]any
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: mustBytes(x509.MarshalPKIXPublicKey(rsaKey.Public()))})
	modulus := rsaKey.N.Bytes()
	rs, es := server.sign(good(), nil), signer{"ec", "ES256", p256Key}.sign(good(), nil)
	thief := signer{"server", "RS256", otherKey}
	parts := strings.Split(rs, ".")
	b := base64.RawURLEncoding
	twice := b.EncodeToString([]byte(`{"alg":"RS256","alg":"none","kid":"server"}`)) + "." + parts[1]
	for name, value := range map[string]string{
		"another key under the same id":  thief.sign(good(), nil),
		"a flipped signature":            flip(rs),
		"no signature":                   parts[0] + "." + parts[1] + ".",
		"two parts":                      parts[0] + "." + parts[1],
		"four parts":                     rs + ".x",
		"other claims":                   parts[0] + "." + encode(with(good(), "jti", "x")) + "." + parts[2],
		"alg none":                       encode(m{"alg": "none", "kid": "server"}) + "." + parts[1] + ".",
		"alg None, signed":               encode(m{"alg": "None", "kid": "server"}) + "." + parts[1] + "." + parts[2],
		"no alg":                         server.sign(good(), m{"kid": "server"}),
		"alg null":                       server.sign(good(), m{"alg": nil, "kid": "server"}),
		"alg in small letters":           server.sign(good(), m{"alg": "rs256", "kid": "server"}),
		"alg of another hash":            server.sign(good(), m{"alg": "RS512", "kid": "server"}),
		"alg PS256":                      server.sign(good(), m{"alg": "PS256", "kid": "server"}),
		"alg of the other kind":          server.sign(good(), m{"alg": "ES256", "kid": "server"}),
		"alg twice":                      twice + "." + b.EncodeToString(server.signature(twice)),
		"HMAC with the PEM":              shared("HS256", public, m{"alg": "HS256", "kid": "server"}, good()),
		"HMAC with the modulus":          shared("HS256", modulus, m{"alg": "HS256", "kid": "server"}, good()),
		"HMAC called RSA":                shared("HS256", public, m{"alg": "RS256", "kid": "server"}, good()),
		"HMAC with nothing":              shared("HS512", nil, m{"alg": "HS512", "kid": "server"}, good()),
		"no kid":                         server.sign(good(), m{"alg": "RS256"}),
		"empty kid":                      server.sign(good(), m{"alg": "RS256", "kid": ""}),
		"kid is a number":                server.sign(good(), m{"alg": "RS256", "kid": 1}),
		"unknown kid":                    thief.sign(good(), m{"alg": "RS256", "kid": "thief"}),
		"kid is a path":                  thief.sign(good(), m{"alg": "RS256", "kid": "../../../dev/null"}),
		"kid is a URL":                   thief.sign(good(), m{"alg": "RS256", "kid": "http://evil/"}),
		"kid with blanks":                server.sign(good(), m{"alg": "RS256", "kid": "server "}),
		"kid of another key":             server.sign(good(), m{"alg": "RS256", "kid": "ec"}),
		"brings its key":                 thief.sign(good(), m{"alg": "RS256", "kid": "server", "jwk": thief.public()}),
		"names its key's place":          thief.sign(good(), m{"alg": "RS256", "kid": "server", "jku": "http://evil/", "x5u": "http://evil/"}),
		"critical extension":             server.sign(good(), m{"alg": "RS256", "kid": "server", "crit": []any{"b64"}, "b64": false}),
		"key for encryption":             signer{"enc", "RS256", rsaKey}.sign(good(), nil),
		"key id that two keys have":      signer{"double", "RS256", rsaKey}.sign(good(), nil),
		"key that is too short":          signer{"short", "RS256", shortKey}.sign(good(), nil),
		"elliptic, zero signature":       es[:strings.LastIndexByte(es, '.')+1] + b.EncodeToString(make([]byte, 64)),
		"elliptic, cut signature":        es[:len(es)-4],
		"elliptic, flipped":              flip(es),
		"elliptic, another curve's alg":  signer{"ec", "ES384", p256Key}.sign(good(), nil),
		"elliptic, point not on it":      signer{"bent", "ES256", p256Key}.sign(good(), nil),
		"standard base64":                strings.ReplaceAll(strings.ReplaceAll(rs, "-", "+"), "_", "/") + "=",
		"a line break in the signature":  parts[0] + "." + parts[1] + "." + parts[2][:9] + "\n" + parts[2][9:],
		"blanks around it":               " " + rs + " ",
		"longer than any token":          server.sign(with(good(), "x", strings.Repeat("x", 20<<10)), nil),
		"claims twice":                   encodeRaw(parts[0], `{"sub":"system:serviceaccount:ns:sa",`+strings.TrimPrefix(raw(good()), "{")),
		"claims with something behind":   encodeRaw(parts[0], raw(good())+`{}`),
		"encrypted form, five parts":     "e30.e30.e30.e30.e30",
		"nothing but dots":               "..",
		"an empty one in JSON form":      `{"payload":"","signatures":[]}`,
		"claims that are a list":         encodeRaw(parts[0], `[]`),
		"claims nested beyond all depth": encodeRaw(parts[0], strings.Repeat(`{"a":`, 1500)+strings.Repeat(`}`, 1500)),
	} {
		t.Run(name, func(t *testing.T) {
			if name != "longer than any token" && name != "standard base64" && value == rs {
				t.Fatal("the token is the good one")
			}
			r := newRig(t)
			encryption := server.public()
			encryption["kid"], encryption["use"] = "enc", "enc"
			bent := signer{"bent", "ES256", p256Key}.public()
			bent["y"] = bent["x"]
			r.keys = []m{server.public(), signer{"ec", "ES256", p256Key}.public(), encryption, bent,
				signer{"short", "RS256", shortKey}.public(),
				signer{"double", "RS256", rsaKey}.public(), signer{"double", "RS256", otherKey}.public()}
			r.want(audience, value, token.InVolumeContext, provider.Unproven)
			r.want(audience, rs, token.InVolumeContext, provider.ProvenBySignature) // the positive control
			if n := r.count("jwks"); n != 1 {
				t.Errorf("%d reads of the keys, want 1", n)
			}
		})
	}
}

func raw(v any) string { out, _ := json.Marshal(v); return string(out) }

// encodeRaw signs, as the API server would, claims that are no ordinary JSON.
func encodeRaw(header, claims string) string {
	signed := header + "." + b64([]byte(claims))
	return signed + "." + b64(server.signature(signed))
}

func TestSignaturesThatProve(t *testing.T) {
	for _, s := range []signer{
		{"a", "RS256", rsaKey}, {"b", "RS384", rsaKey}, {"c", "RS512", rsaKey},
		{"d", "ES256", p256Key}, {"e", "ES384", p384Key}, {"f", "ES512", p521Key},
	} {
		r := newRig(t)
		r.keys = []map[string]any{s.public()}
		value := s.sign(with(good(), "aud", audience), nil) // one audience may stand without a list
		for range 3 {
			r.want(audience, value, token.InVolumeContext, provider.ProvenBySignature)
		}
		if g, j := r.count("get"), r.count("jwks"); g != 1 || j != 1 {
			t.Errorf("%s: %d reads of the CSIDriver, %d of the keys; want 1 and 1", s.alg, g, j)
		}
		other := pod
		other.UID = "uid-2" // a verdict is kept for the token, not for whoever brings it
		got, err := r.Prove(t.Context(), other, wire(audience, value), token.InVolumeContext)
		if err != nil || got[audience].Proof != provider.Unproven {
			t.Errorf("%s: for another pod: %v, %v", s.alg, got[audience].Proof, err)
		}
		r.seconds.Store(3600)
		r.want(audience, value, token.InVolumeContext, provider.Unproven)
	}
}

func TestKeysChange(t *testing.T) {
	next := signer{"next", "ES256", p256Key}
	r := newRig(t)
	r.keys = []map[string]any{server.public()}
	n := 0
	try := func(s signer, want provider.Proof, reads int) {
		t.Helper()
		n++
		claims := with(with(good(), "jti", n), "exp", epoch+86400)
		got, err := r.Prove(t.Context(), pod, fmt.Sprintf(`{%q:{"token":%q}}`, audience, s.sign(claims, nil)), token.InVolumeContext)
		if err != nil || got[audience].Proof != want || r.count("jwks") != reads {
			t.Errorf("%v, %v after %d reads, want %v after %d", got[audience].Proof, err, r.count("jwks"), want, reads)
		}
	}
	try(server, provider.ProvenBySignature, 1)
	r.set(func() { r.keys = append(r.keys, next.public()) })
	for range 10 { // unknown ids make at most one read a minute
		try(next, provider.Unproven, 1)
	}
	r.seconds.Add(60)
	try(next, provider.ProvenBySignature, 2)
	r.set(func() { r.keys = []map[string]any{next.public()} })
	try(server, provider.ProvenBySignature, 2)
	r.seconds.Add(3600) // a key that was withdrawn counts for an hour at most
	try(server, provider.Unproven, 3)
	r.set(func() { r.refuse["jwks"] = 503 })
	r.seconds.Add(3600)
	try(next, provider.ProvenBySignature, 4) // in an outage the old keys stay
	try(next, provider.ProvenBySignature, 4)
}

func TestKeySetsOfAnotherForm(t *testing.T) {
	key := raw(server.public())
	many := strings.TrimSuffix(strings.Repeat(key+",", 65), ",")
	for name, set := range map[string]string{
		"not JSON": "<html>", "no keys": "{}", "null": "null", "keys are null": `{"keys":null}`, "a list": "[" + key + "]",
		"keys are strings": `{"keys":["x"]}`, "huge": `{"keys":[` + key + `],"x":"` + strings.Repeat("x", 2<<20) + `"}`,
		"too many": `{"keys":[` + many + `]}`,
	} {
		r := newRig(t)
		r.raw = []byte(set)
		r.want(audience, server.sign(good(), nil), token.InVolumeContext, provider.Unproven)
		if n := strings.Count(r.logs.String(), "token keys cannot be read"); n != 1 {
			t.Errorf("%s: said %d times", name, n)
		}
	}
}
