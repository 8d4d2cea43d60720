package emulator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// Errors of parseJWT and verify; the text that a client sees is chosen by the caller.
var (
	errMalformedToken = errors.New("not a compact JWS")
	errUnknownKey     = errors.New("the signing key is not known")
	errBadSignature   = errors.New("the signature does not match")
)

type jwtHeader struct {
	Alg string `json:"alg"`
	Kid string `json:"kid,omitempty"`
	Typ string `json:"typ,omitempty"`
	X5T string `json:"x5t,omitempty"`
}

// jwtClaims are the claims that the emulator looks at or sets.
type jwtClaims struct {
	Audience  audience `json:"aud"`
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub,omitempty"`
	IssuedAt  int64    `json:"iat,omitempty"`
	NotBefore int64    `json:"nbf,omitempty"`
	Expires   int64    `json:"exp"`
	AppID     string   `json:"appid,omitempty"`
	IDType    string   `json:"idtyp,omitempty"`
	ObjectID  string   `json:"oid,omitempty"`
	TenantID  string   `json:"tid,omitempty"`
	TokenID   string   `json:"uti,omitempty"`
	Version   string   `json:"ver,omitempty"`
}

// audience is one string or a list of them (RFC 7519 4.1.3).
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*a = audience{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(b, &many); err != nil {
		return fmt.Errorf("decoding aud: %w", err)
	}
	*a = many
	return nil
}

func (a audience) MarshalJSON() ([]byte, error) {
	if len(a) == 1 {
		return json.Marshal(a[0])
	}
	return json.Marshal([]string(a))
}

// A parsedJWT has not been verified.
type parsedJWT struct {
	header    jwtHeader
	claims    jwtClaims
	signed    string
	signature []byte
}

func parseJWT(token string) (*parsedJWT, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errMalformedToken
	}
	p := &parsedJWT{signed: parts[0] + "." + parts[1]}
	var raw [3][]byte
	for i, part := range parts {
		b, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			return nil, errMalformedToken
		}
		raw[i] = b
	}
	if json.Unmarshal(raw[0], &p.header) != nil || json.Unmarshal(raw[1], &p.claims) != nil {
		return nil, errMalformedToken
	}
	p.signature = raw[2]
	return p, nil
}

// verify checks the signature. The algorithm must fit the key's type: a token cannot choose a weaker one.
func (p *parsedJWT) verify(key crypto.PublicKey) error {
	sum := sha256.Sum256([]byte(p.signed))
	switch k := key.(type) {
	case *rsa.PublicKey:
		if p.header.Alg == "RS256" && rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], p.signature) == nil {
			return nil
		}
		if p.header.Alg == "PS256" && rsa.VerifyPSS(k, crypto.SHA256, sum[:], p.signature, nil) == nil {
			return nil
		}
	case *ecdsa.PublicKey:
		if p.header.Alg != "ES256" || len(p.signature) != 64 {
			return errBadSignature
		}
		r, s := new(big.Int).SetBytes(p.signature[:32]), new(big.Int).SetBytes(p.signature[32:])
		if ecdsa.Verify(k, sum[:], r, s) {
			return nil
		}
	}
	return errBadSignature
}

// signJWT signs with RS256 or, for a P-256 key, ES256.
func signJWT(key crypto.Signer, kid string, claims any) (string, error) {
	header := jwtHeader{Alg: "RS256", Kid: kid, Typ: "JWT"}
	if _, ok := key.(*ecdsa.PrivateKey); ok {
		header.Alg = "ES256"
	}
	h, err := json.Marshal(header)
	if err != nil {
		return "", fmt.Errorf("encoding the header: %w", err)
	}
	b, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding the claims: %w", err)
	}
	signed := base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(b)
	sum := sha256.Sum256([]byte(signed))
	var sig []byte
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
		if err != nil {
			return "", fmt.Errorf("signing: %w", err)
		}
		sig = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	default:
		if sig, err = key.Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
			return "", fmt.Errorf("signing: %w", err)
		}
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}

// publicJWK is the key as a member of a JSON web key set (RFC 7517 4, RFC 7518 6).
func publicJWK(key crypto.PublicKey, kid string) map[string]string {
	b64 := base64.RawURLEncoding.EncodeToString
	switch k := key.(type) {
	case *rsa.PublicKey:
		return map[string]string{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())}
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			return nil
		}
		half := (len(point) - 1) / 2
		return map[string]string{"kty": "EC", "use": "sig", "alg": "ES256", "crv": k.Curve.Params().Name, "kid": kid, "x": b64(point[1 : 1+half]), "y": b64(point[1+half:])}
	}
	return nil
}

// keyID is a short name of a public key, the same for the same key.
func keyID(key crypto.PublicKey) string {
	b, _ := json.Marshal(publicJWK(key, "")) // strings only
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:20])
}
