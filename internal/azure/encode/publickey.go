package encode

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
)

// A JWK is the public part of a key as in RFC 7517 4.1 and RFC 7518 6, its numbers as bytes.
type JWK struct {
	Type, Curve string
	N, E, X, Y  []byte
}

// maxModulus is in bytes. Key Vault makes 4096 bits at most.
const maxModulus = 2048

// PublicKey returns the key as PEM of a SubjectPublicKeyInfo (RFC 5280 4.1.2.7).
func (k JWK) PublicKey() ([]byte, error) {
	var key any
	var err error
	switch k.Type {
	case "RSA", "RSA-HSM":
		key, err = k.rsa()
	case "EC", "EC-HSM":
		key, err = k.ec()
	default:
		return nil, fmt.Errorf("failed to get key. key type '%s' currently not supported", show(k.Type))
	}
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("writing the public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

func (k JWK) rsa() (*rsa.PublicKey, error) {
	n, e := new(big.Int).SetBytes(bound(k.N)), new(big.Int).SetBytes(bound(k.E))
	switch {
	case n.Sign() == 0 || e.Sign() == 0:
		return nil, errors.New("the RSA key lacks its modulus or exponent")
	case len(k.N) > maxModulus || n.Bit(0) == 0:
		return nil, errors.New("the RSA key's modulus is none")
	case e.BitLen() > 31 || e.Bit(0) == 0 || e.Cmp(big.NewInt(3)) < 0:
		return nil, errors.New("the RSA key's exponent is none")
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

func bound(b []byte) []byte { return b[:min(len(b), maxModulus+1)] }

func (k JWK) ec() (*ecdsa.PublicKey, error) {
	var curve elliptic.Curve
	switch k.Curve {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	case "P-521":
		curve = elliptic.P521()
	default: // P-256K too, which x509 cannot write
		return nil, fmt.Errorf("curve %s is not supported", show(k.Curve))
	}
	size := (curve.Params().BitSize + 7) / 8
	x, y := bytes.TrimLeft(k.X, "\x00"), bytes.TrimLeft(k.Y, "\x00")
	if len(k.X) == 0 || len(k.Y) == 0 || len(x) > size || len(y) > size {
		return nil, errors.New("the EC key lacks coordinates of its curve")
	}
	point := make([]byte, 1+2*size)
	point[0] = 4 // uncompressed, SEC 1 2.3.3
	copy(point[1+size-len(x):], x)
	copy(point[1+2*size-len(y):], y)
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, fmt.Errorf("the EC key is no point of curve %s", k.Curve)
	}
	return key, nil
}

// Certificate returns one certificate as PEM. It is not parsed any further than that it is one DER value: certificates
// that Go's x509 refuses, such as those with a negative serial number, are somebody's nevertheless.
func Certificate(der []byte) ([]byte, error) {
	if len(der) == 0 {
		return nil, errors.New("certificate value is nil")
	}
	var value asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &value); err != nil || len(rest) > 0 || value.Tag != asn1.TagSequence {
		return nil, errors.New("the certificate is not DER")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
