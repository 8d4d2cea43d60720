package emulator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
)

// keyData is the public half of a key object, and the private one where the emulator made it for a certificate.
type keyData struct {
	kty     string // RSA, EC, RSA-HSM, EC-HSM, oct-HSM
	crv     string
	n, e    []byte
	x, y    []byte
	ops     []string
	release json.RawMessage
}

func (k *keyData) public(kid string) jwkJSON {
	b64 := base64.RawURLEncoding.EncodeToString
	return jwkJSON{KID: kid, Kty: k.kty, Ops: k.ops, N: b64(k.n), E: b64(k.e), Crv: k.crv, X: b64(k.x), Y: b64(k.y)}
}

// newKeyData describes a public key the way the service does; hsm adds -HSM to its type.
func newKeyData(pub crypto.PublicKey, hsm bool, ops []string) (*keyData, error) {
	d := &keyData{ops: ops}
	switch k := pub.(type) {
	case *rsa.PublicKey:
		d.kty, d.n, d.e = "RSA", k.N.Bytes(), big.NewInt(int64(k.E)).Bytes()
		if len(ops) == 0 {
			d.ops = []string{"encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"}
		}
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			return nil, fmt.Errorf("encoding the public key: %w", err)
		}
		half := (len(point) - 1) / 2
		d.kty, d.crv, d.x, d.y = "EC", k.Curve.Params().Name, point[1:1+half], point[1+half:]
		if len(ops) == 0 {
			d.ops = []string{"sign", "verify"}
		}
	default:
		return nil, fmt.Errorf("keys of type %T are not served", pub)
	}
	if hsm {
		d.kty += "-HSM"
	}
	return d, nil
}

// generate makes a key pair. Sizes are bits; "" and 0 mean P-256 and 2048.
func generate(kty, crv string, size int) (crypto.Signer, error) {
	switch strings.TrimSuffix(kty, "-HSM") {
	case "RSA":
		switch size {
		case 0:
			size = 2048
		case 2048, 3072, 4096:
		default:
			return nil, fmt.Errorf("RSA keys have 2048, 3072 or 4096 bits, not %d", size)
		}
		return rsa.GenerateKey(rand.Reader, size)
	case "EC":
		curve, ok := map[string]elliptic.Curve{"": elliptic.P256(), "P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[crv]
		if !ok {
			return nil, fmt.Errorf("unknown curve %q: use P-256, P-384 or P-521 (P-256K for a key object only)", crv)
		}
		return ecdsa.GenerateKey(curve, rand.Reader)
	}
	return nil, fmt.Errorf("unknown key type %q: use RSA, EC, RSA-HSM or EC-HSM", kty)
}

// generateKeyData makes the key of a key object, of which only the public half is ever shown.
func generateKeyData(kty, crv string, size int, ops []string) (*keyData, error) {
	hsm := strings.HasSuffix(kty, "-HSM")
	switch {
	case kty == "oct-HSM":
		return &keyData{kty: kty, ops: orDefault(ops, []string{"encrypt", "decrypt", "wrapKey", "unwrapKey"})}, nil
	case strings.HasPrefix(kty, "EC") && (crv == "P-256K" || crv == "SECP256K1"):
		x, y := secp256k1()
		d := &keyData{kty: "EC", crv: "P-256K", x: x, y: y, ops: orDefault(ops, []string{"sign", "verify"})}
		if hsm {
			d.kty += "-HSM"
		}
		return d, nil
	}
	key, err := generate(kty, crv, size)
	if err != nil {
		return nil, err
	}
	return newKeyData(key.Public(), hsm, ops)
}

func orDefault(ops, fallback []string) []string {
	if len(ops) == 0 {
		return fallback
	}
	return ops
}

// secp256k1 is a random point of the curve y^2 = x^3 + 7 (SEC 2, 2.4.1), which the standard library does not have. A random x
// is on the curve half of the time. Nobody knows the private key; nothing here would use it.
func secp256k1() (x, y []byte) {
	p, _ := new(big.Int).SetString("FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEFFFFFC2F", 16)
	for {
		bx, err := rand.Int(rand.Reader, p)
		if err != nil {
			panic(err) // crypto/rand does not fail
		}
		rhs := new(big.Int).Exp(bx, big.NewInt(3), p)
		rhs.Add(rhs, big.NewInt(7)).Mod(rhs, p)
		if by := new(big.Int).ModSqrt(rhs, p); by != nil {
			return bx.FillBytes(make([]byte, 32)), by.FillBytes(make([]byte, 32))
		}
	}
}

type keyRequest struct {
	Kty           string            `json:"kty"`
	Crv           string            `json:"crv"`
	Size          int               `json:"key_size"`
	Ops           []string          `json:"key_ops"`
	Attributes    *attributesInput  `json:"attributes"`
	Tags          map[string]string `json:"tags"`
	ReleasePolicy json.RawMessage   `json:"release_policy"`
	HSM           bool              `json:"Hsm"`
	Key           *struct {
		Kty string   `json:"kty"`
		Crv string   `json:"crv"`
		Ops []string `json:"key_ops"`
		N   string   `json:"n"`
		E   string   `json:"e"`
		X   string   `json:"x"`
		Y   string   `json:"y"`
	} `json:"key"`
}

func (c *call) makeKey() (*material, *response) {
	var in keyRequest
	if r := c.decode(&in); r != nil {
		return nil, r
	}
	var d *keyData
	var err error
	if c.route.op == opCreate {
		d, err = generateKeyData(in.Kty, in.Crv, in.Size, in.Ops)
		if err != nil {
			return nil, badParameter("Property  has invalid value\r\n")
		}
	} else if d, err = in.imported(); err != nil {
		return nil, badParameter(`The property "key" must be a valid JsonWebKey object.`)
	}
	d.release = releasePolicy(in.ReleasePolicy)
	ver := &version{id: newVersionID(), attrs: c.site.vault.freshAttributes(), tags: in.Tags, key: d}
	ver.attrs.Exportable = new(bool)
	in.Attributes.apply(&ver.attrs)
	return &material{version: ver}, nil
}

// releasePolicy is a policy as it is shown: with the members that the service adds.
func releasePolicy(raw json.RawMessage) json.RawMessage {
	var in struct {
		ContentType string `json:"contentType"`
		Data        string `json:"data"`
		Immutable   bool   `json:"immutable"`
	}
	if len(raw) == 0 || string(raw) == "null" || json.Unmarshal(raw, &in) != nil {
		return nil
	}
	if in.ContentType == "" {
		in.ContentType = "application/json; charset=utf-8"
	}
	b, _ := json.Marshal(in) // strings and a bool
	return b
}

func (in *keyRequest) imported() (*keyData, error) {
	if in.Key == nil {
		return nil, fmt.Errorf("no key")
	}
	d := &keyData{kty: in.Key.Kty, crv: in.Key.Crv, ops: in.Key.Ops}
	for _, f := range []struct {
		from string
		to   *[]byte
	}{{in.Key.N, &d.n}, {in.Key.E, &d.e}, {in.Key.X, &d.x}, {in.Key.Y, &d.y}} {
		b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(f.from, "="))
		if err != nil {
			return nil, fmt.Errorf("decoding a member: %w", err)
		}
		*f.to = b
	}
	switch d.kty {
	case "RSA", "RSA-HSM":
		if len(d.n) == 0 || len(d.e) == 0 {
			return nil, fmt.Errorf("an RSA key needs n and e")
		}
		d.ops = orDefault(d.ops, []string{"encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"})
	case "EC", "EC-HSM":
		if len(d.x) == 0 || len(d.y) == 0 || d.crv == "" {
			return nil, fmt.Errorf("an EC key needs crv, x and y")
		}
		d.ops = orDefault(d.ops, []string{"sign", "verify"})
	default:
		return nil, fmt.Errorf("unknown key type %q", d.kty)
	}
	if in.HSM && !strings.HasSuffix(d.kty, "-HSM") {
		d.kty += "-HSM"
	}
	return d, nil
}
