package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of the algorithms below
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
	"time"

	"keymount/internal/provider"
)

// A jwt is a JSON web token taken apart (RFC 7515, RFC 7519). That it could be says nothing about whether it is true.
type jwt struct {
	algorithm, keyID string
	signed           []byte // what the signature is over
	signature        []byte
	claims           claims
}

// claims are what a service account token says.
type claims struct {
	issuer, subject, podUID string
	audiences               []string
	expires                 time.Time
}

var errNotJWT = errors.New("it is no service account token")

func parseJWT(token string) (*jwt, error) {
	if len(token) > maxToken {
		return nil, errNotJWT
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errNotJWT
	}
	raw := make([][]byte, len(parts))
	for i, part := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil || strings.ContainsAny(part, "\r\n") {
			return nil, errNotJWT
		}
	}
	header, err := members(raw[0])
	if err != nil {
		return nil, errNotJWT
	}
	j := &jwt{signed: []byte(parts[0] + "." + parts[1]), signature: raw[2]}
	// Extensions that must be understood are not; Kubernetes uses none.
	if _, critical := header["crit"]; critical || text(header["alg"], &j.algorithm) != nil {
		return nil, errNotJWT
	}
	if kid, ok := header["kid"]; ok && text(kid, &j.keyID) != nil {
		return nil, errNotJWT
	}
	j.claims, err = parseClaims(raw[1])
	return j, err
}

// text reads a JSON string, and nothing else.
func text(raw json.RawMessage, into *string) error {
	if len(raw) == 0 || raw[0] != '"' {
		return errNotJWT
	}
	return json.Unmarshal(raw, into)
}

func parseClaims(payload []byte) (claims, error) {
	top, err := members(payload)
	if err != nil {
		return claims{}, errNotJWT
	}
	var c claims
	var expires float64
	if text(top["iss"], &c.issuer) != nil || text(top["sub"], &c.subject) != nil ||
		json.Unmarshal(top["exp"], &expires) != nil || expires < 0 || expires > 1e11 {
		return claims{}, errNotJWT
	}
	c.expires = time.Unix(int64(expires), 0)
	var one string
	switch raw := top["aud"]; {
	case text(raw, &one) == nil:
		c.audiences = []string{one}
	case json.Unmarshal(raw, &c.audiences) != nil:
		return claims{}, errNotJWT
	}
	kubernetes, err := members(top["kubernetes.io"])
	if err != nil {
		return claims{}, errNotJWT
	}
	pod, err := members(kubernetes["pod"])
	if err != nil || text(pod["uid"], &c.podUID) != nil {
		return claims{}, errNotJWT
	}
	return c, nil
}

// belongs says whether the claims are those of a token that kubelet would give this pod for this audience. The audience "" is
// the API server's own, whatever it is called.
func (c claims) belongs(pod provider.Pod, audience string, now time.Time) bool {
	switch {
	case pod.Namespace == "" || pod.ServiceAccount == "" || pod.UID == "":
	case c.issuer == "" || c.podUID != pod.UID || !now.Before(c.expires):
	case c.subject != "system:serviceaccount:"+pod.Namespace+":"+pod.ServiceAccount:
	case audience == "" && len(c.audiences) == 0, audience != "" && !slices.Contains(c.audiences, audience):
	default:
		return true
	}
	return false
}

// signedBy says whether key made the signature. The key decides which algorithms can be meant, not the token: a token that
// names none, or one with a shared secret, is never signed.
func (j *jwt) signedBy(key crypto.PublicKey) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		hash, ok := map[string]crypto.Hash{"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512}[j.algorithm]
		return ok && rsa.VerifyPKCS1v15(key, hash, sum(hash, j.signed), j.signature) == nil
	case *ecdsa.PublicKey:
		hash, ok := map[string]crypto.Hash{"ES256": crypto.SHA256, "ES384": crypto.SHA384, "ES512": crypto.SHA512}[j.algorithm]
		bits := map[string]int{"ES256": 256, "ES384": 384, "ES512": 521}[j.algorithm]
		half := (bits + 7) / 8
		if !ok || key.Curve.Params().BitSize != bits || len(j.signature) != 2*half {
			return false
		}
		r, s := new(big.Int).SetBytes(j.signature[:half]), new(big.Int).SetBytes(j.signature[half:])
		return ecdsa.Verify(key, sum(hash, j.signed), r, s)
	}
	return false
}

func sum(hash crypto.Hash, data []byte) []byte {
	h := hash.New()
	h.Write(data)
	return h.Sum(nil)
}
