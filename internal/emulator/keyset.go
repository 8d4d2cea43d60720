package emulator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// Bounds of a key set: an API server has one or two keys, and a few more while they are replaced.
const (
	maxKeySet     = 256 << 10
	maxKeys       = 32
	maxKeyID      = 256
	minRSA        = 2048
	maxRSA        = 8192
	maxExponent   = 1<<31 - 1
	wantKeySource = "use what the cluster's API server gives at /openid/v1/jwks"
)

// jwk has the members that are read (RFC 7518 6). Others, such as certificates, are passed over.
type jwk struct {
	Type string `json:"kty"`
	ID   string `json:"kid"`
	Use  string `json:"use"`
	Alg  string `json:"alg"`
	N    string `json:"n"`
	E    string `json:"e"`
	Crv  string `json:"crv"`
	X    string `json:"x"`
	Y    string `json:"y"`
	D    string `json:"d"` // private: it is looked for only to be refused
}

// readKeySet reads the public keys of a cluster.
func readKeySet(document []byte) ([]publicKey, error) {
	if len(document) > maxKeySet {
		return nil, fmt.Errorf("the key set is larger than %d bytes: %s", maxKeySet, wantKeySource)
	}
	var set struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(document, &set); err != nil {
		return nil, fmt.Errorf("reading the key set: %w: %s", err, wantKeySource)
	}
	if len(set.Keys) == 0 || len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("the key set has %d keys, not 1 to %d: %s", len(set.Keys), maxKeys, wantKeySource)
	}
	var all []publicKey
	seen := map[string]bool{}
	for i, k := range set.Keys {
		key, err := k.public()
		switch {
		case err != nil:
		case k.ID == "" || len(k.ID) > maxKeyID:
			err = errors.New("kid is missing or too long: tokens name their key by it")
		case seen[k.ID]:
			err = fmt.Errorf("kid %q is there twice", k.ID)
		}
		if err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
		seen[k.ID] = true
		all = append(all, publicKey{k.ID, key})
	}
	return all, nil
}

func (k *jwk) public() (crypto.PublicKey, error) {
	if k.D != "" {
		return nil, errors.New("it is a private key: give the public ones only")
	}
	if k.Use != "" && k.Use != "sig" {
		return nil, fmt.Errorf("use %q: only keys for signatures (sig) verify tokens", k.Use)
	}
	switch {
	case k.Type == "RSA" && (k.Alg == "" || k.Alg == "RS256" || k.Alg == "PS256"):
		return k.rsa()
	case k.Type == "EC" && k.Crv == "P-256" && (k.Alg == "" || k.Alg == "ES256"):
		return k.ec()
	}
	return nil, fmt.Errorf("kty %q, crv %q, alg %q: Entra ID takes RSA keys (RS256) and the emulator P-256 ones (ES256) too", k.Type, k.Crv, k.Alg)
}

func (k *jwk) rsa() (crypto.PublicKey, error) {
	n, err := number("n", k.N, maxRSA)
	if err != nil {
		return nil, err
	}
	e, err := number("e", k.E, 32)
	if err != nil {
		return nil, err
	}
	if n.BitLen() < minRSA || n.Bit(0) == 0 {
		return nil, fmt.Errorf("n has %d bits: an RSA modulus is odd and has %d to %d", n.BitLen(), minRSA, maxRSA)
	}
	if e.Cmp(big.NewInt(3)) < 0 || e.Cmp(big.NewInt(maxExponent)) > 0 || e.Bit(0) == 0 {
		return nil, errors.New("e is not a public exponent: it is odd, mostly 65537 (AQAB)")
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

func (k *jwk) ec() (crypto.PublicKey, error) {
	point := make([]byte, 65)
	point[0] = 4 // uncompressed (SEC 1, 2.3.3)
	for i, c := range []struct{ name, text string }{{"x", k.X}, {"y", k.Y}} {
		n, err := number(c.name, c.text, 256)
		if err != nil {
			return nil, err
		}
		n.FillBytes(point[1+32*i : 33+32*i])
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, fmt.Errorf("x and y are no point of P-256: %w", err)
	}
	return key, nil
}

// number reads a Base64urlUInt (RFC 7518 2) of at most so many bits.
func number(member, text string, bits int) (*big.Int, error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%s is not base64url without padding: %w", member, err)
	}
	n := new(big.Int).SetBytes(b)
	if len(b) == 0 || n.BitLen() > bits {
		return nil, fmt.Errorf("%s is missing or has more than %d bits", member, bits)
	}
	return n, nil
}
