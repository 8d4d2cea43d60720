package emulator

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

// pfxIterations is what the service's files have since 2021.
const pfxIterations = 2000

// encode makes the secret's value as the policy wants it: a PFX in base64 or PEM text, with the key only if it may leave the vault.
func (is *issued) encode() (string, error) {
	key := is.key
	if !is.policy.exportable() {
		key = nil
	}
	if is.policy.Secret.ContentType == contentPEM {
		return encodePEM(key, is.leaf, is.chain)
	}
	der, err := encodePFX(is.key, is.leaf, is.chain, key != nil)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(der), nil
}

func encodePEM(key crypto.Signer, leaf []byte, chain [][]byte) (string, error) {
	var b bytes.Buffer
	if key != nil {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return "", fmt.Errorf("encoding the private key: %w", err)
		}
		_ = pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: der}) // a buffer does not fail
	}
	for _, der := range append([][]byte{leaf}, chain...) {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return b.String(), nil
}

// The outer structures of a PFX (RFC 7292 4).
type pfxPDU struct {
	Version  int
	AuthSafe contentInfo
	MacData  macData
}

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
}

type macData struct {
	Mac        digestInfo
	MacSalt    []byte
	Iterations int
}

type digestInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Digest    []byte
}

// encodePFX makes a PFX with an empty password as the service does: 3DES with 2000 iterations, the key's safe first; without
// the key there is one safe, of certificates only. The writer in use puts the safes in the other order and always writes two, so they
// are rearranged and the MAC is made anew.
func encodePFX(key crypto.Signer, leaf []byte, chain [][]byte, withKey bool) ([]byte, error) {
	cert, err := x509.ParseCertificate(leaf)
	if err != nil {
		return nil, fmt.Errorf("reading the leaf: %w", err)
	}
	var parents []*x509.Certificate
	for _, der := range chain {
		p, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("reading the chain: %w", err)
		}
		parents = append(parents, p)
	}
	der, err := pkcs12.LegacyDES.WithIterations(pfxIterations).Encode(key, cert, parents, "")
	if err != nil {
		return nil, fmt.Errorf("encoding the PFX: %w", err)
	}
	return rearrange(der, withKey)
}

func rearrange(der []byte, withKey bool) ([]byte, error) {
	var pfx pfxPDU
	if _, err := asn1.Unmarshal(der, &pfx); err != nil {
		return nil, fmt.Errorf("reading the PFX: %w", err)
	}
	var authSafe []byte
	if _, err := asn1.Unmarshal(pfx.AuthSafe.Content.Bytes, &authSafe); err != nil {
		return nil, fmt.Errorf("reading the PFX: %w", err)
	}
	var safes []asn1.RawValue
	if _, err := asn1.Unmarshal(authSafe, &safes); err != nil {
		return nil, fmt.Errorf("reading the PFX: %w", err)
	}
	if len(safes) != 2 {
		return nil, errors.New("rearranging the PFX: it does not have two safes")
	}
	wanted := []asn1.RawValue{safes[1], safes[0]}
	if !withKey {
		wanted = safes[:1]
	}
	content, err := asn1.Marshal(wanted)
	if err != nil {
		return nil, fmt.Errorf("encoding the PFX: %w", err)
	}
	octets, err := asn1.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("encoding the PFX: %w", err)
	}
	pfx.AuthSafe.Content = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: octets}
	salt := make([]byte, 20)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	pfx.MacData = macData{Mac: digestInfo{Algorithm: pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, Parameters: asn1.NullRawValue}},
		MacSalt: salt, Iterations: pfxIterations}
	mac := hmac.New(sha1.New, macKey(salt, pfxIterations))
	mac.Write(content)
	pfx.MacData.Mac.Digest = mac.Sum(nil)
	return asn1.Marshal(pfx)
}

// macKey derives the MAC key of the empty password (RFC 7292 B.2, with ID 3). One block of SHA-1 is all that is needed.
func macKey(salt []byte, iterations int) []byte {
	const block = 64
	d := bytes.Repeat([]byte{3}, block)
	fill := func(b []byte) []byte { return bytes.Repeat(b, block/len(b)+1)[:block] }
	password := []byte{0, 0} // the empty string as a BMPString with its terminator
	sum := sha1.Sum(append(append(d, fill(salt)...), fill(password)...))
	for range iterations - 1 {
		sum = sha1.Sum(sum[:])
	}
	return sum[:]
}

// readIssued takes apart an uploaded certificate: PEM text, or a PFX in base64 or DER. Certificates keep their order; the leaf is the one whose
// key is there, else the first.
func readIssued(value, password string) (*issued, string, error) {
	var blocks []*pem.Block
	contentType := contentPEM
	if strings.Contains(value, "-----BEGIN ") {
		for rest := []byte(value); ; {
			var b *pem.Block
			if b, rest = pem.Decode(rest); b == nil {
				break
			}
			blocks = append(blocks, b)
		}
	} else {
		contentType = contentPFX
		der := []byte(value)
		if b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value)); err == nil {
			der = b
		}
		var err error
		//lint:ignore SA1019 it does not parse certificates, so that odd ones can be stored; keys are read in all their forms
		if blocks, err = pkcs12.ToPEM(der, password); err != nil {
			return nil, "", fmt.Errorf("reading the PFX: %w", err)
		}
	}
	is := &issued{}
	var all [][]byte
	for _, b := range blocks {
		if b.Type == "CERTIFICATE" {
			all = append(all, b.Bytes)
		} else if strings.HasSuffix(b.Type, "PRIVATE KEY") {
			is.key = readKey(b.Bytes)
		}
	}
	if len(all) == 0 {
		return nil, "", errors.New("there is no certificate in it")
	}
	at := is.leafAt(all)
	is.leaf = all[at]
	is.chain = append(append([][]byte{}, all[:at]...), all[at+1:]...)
	return is, contentType, nil
}

// readKey reads PKCS #8, PKCS #1 and SEC 1; nil if it cannot, as for curves that the standard library does not have.
func readKey(der []byte) crypto.Signer {
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		s, _ := k.(crypto.Signer)
		return s
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k
	}
	return nil
}

func (is *issued) leafAt(all [][]byte) int {
	if is.key == nil {
		return 0
	}
	pub, ok := is.key.Public().(interface{ Equal(crypto.PublicKey) bool })
	for i, der := range all {
		if cert, err := x509.ParseCertificate(der); err == nil && ok && pub.Equal(cert.PublicKey) {
			return i
		}
	}
	return 0
}
