// Package pfx reads PKCS #12 files (RFC 7292) without a password, as Key Vault stores certificates and as people put them into Secrets.
//
// Why a reader of our own: no library reads what users have. x/crypto/pkcs12 is frozen and knows neither PBES2 nor SHA-256.
// go-pkcs12 does, but wants exactly two safes where it returns certificates as bytes (a non-exportable certificate of Key
// Vault has one safe), refuses attributes that Windows writes and keys that are neither RSA nor ECDSA, parses certificates
// with x509 everywhere else (negative serial numbers), and works through whatever iteration count the file names, which
// lets who writes a secret stop a node. The tests compare this reader with go-pkcs12 and with OpenSSL.
//
// It owns the format and the order of a chain: bytes in, bytes out. It imports the standard library only, keeps no state, logs nothing, and
// may be used from any number of goroutines. Sizes, counts and the work that a file asks for are bounded; an error never says what is in it.
package pfx

import (
	"crypto/hmac"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

const (
	maxPFX   = 1 << 20 // bytes; Key Vault's own limit for a secret is 25 KB
	maxBags  = 256
	maxDepth = 4 // of safes within safes
	maxKeys  = 8
	// maxKeySize is in bytes, a little more than RSA of 8192 bits takes. To read a larger one takes seconds.
	maxKeySize = 5000
)

// Object identifiers of RFC 7292.
const (
	oidData          = "1.2.840.113549.1.7.1"
	oidEncryptedData = "1.2.840.113549.1.7.6"
	oidKeyBag        = "1.2.840.113549.1.12.10.1.1"
	oidShroudedKey   = "1.2.840.113549.1.12.10.1.2"
	oidCertBag       = "1.2.840.113549.1.12.10.1.3"
	oidSafeContents  = "1.2.840.113549.1.12.10.1.6"
	oidX509Cert      = "1.2.840.113549.1.9.22.1"
)

type pfxPDU struct {
	Version  int
	AuthSafe contentInfo
	Mac      macData `asn1:"optional"`
}

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
}

type macData struct {
	Digest struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}
	Salt       []byte
	Iterations int `asn1:"optional,default:1"`
}

type encryptedData struct {
	Version int
	Info    struct {
		Type      asn1.ObjectIdentifier
		Algorithm pkix.AlgorithmIdentifier
		Content   []byte `asn1:"tag:0,optional"`
	}
}

type shroudedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Encrypted []byte
}

// A safeBag's attributes (names, ids, properties of Windows) are not read: nothing depends on them.
type safeBag struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue `asn1:"tag:0,explicit"`
}

type certBag struct {
	ID    asn1.ObjectIdentifier
	Value []byte `asn1:"tag:0,explicit"`
}

// A File is what a PKCS #12 file holds, in the file's order, as DER: PKCS #8 keys and certificates.
type File struct {
	Keys, Certificates [][]byte
}

// OrderChain puts the certificates into the order leaf, intermediates, root. Where the chain is not complete they keep their order.
func (f *File) OrderChain() (complete bool) {
	f.Certificates, complete = chain(f.Certificates, f.Keys)
	return complete
}

// Read reads a file. The budget bounds the work on this and other files together; nil bounds each alone.
func Read(der []byte, budget *Budget) (*File, error) { return readPFX(der, &work{budget: budget}) }

// errPassword says what a wrong check value almost always means.
var errPassword = errors.New("it is damaged, or protected by a password; Key Vault stores certificates without one")

// readPFX reads a file whose password is empty, which writers express in two ways: as a string of no characters with its
// final zero, or as no bytes at all.
func readPFX(der []byte, w *work) (*File, error) {
	if len(der) > maxPFX {
		return nil, fmt.Errorf("it is larger than %d bytes", maxPFX)
	}
	var pdu pfxPDU
	if err := parse(der, &pdu); err != nil {
		return nil, err
	}
	if pdu.Version != 3 || pdu.AuthSafe.Type.String() != oidData {
		return nil, errors.New("it is not version 3 with a password")
	}
	var authSafe []byte
	if err := parse(pdu.AuthSafe.Content.Bytes, &authSafe); err != nil {
		return nil, err
	}
	var err error
	for _, password := range [][]byte{{0, 0}, nil} {
		r := &reader{work: w, password: password}
		if !r.macMatches(&pdu.Mac, authSafe) {
			err = errPassword
			continue
		}
		if err = r.safes(authSafe); err == nil {
			return &r.file, nil
		}
		if !errors.Is(err, errPassword) {
			break
		}
	}
	if w.exceeded() {
		return nil, errWork
	}
	return nil, err
}

// parse is asn1.Unmarshal of the whole input. Its errors name fields of the structures here and types, not content.
func parse(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err != nil {
		return errors.New("it is not PKCS #12 in DER")
	}
	if len(rest) > 0 {
		return errors.New("it has data after its end")
	}
	return nil
}

// A reader collects what the safes hold, with one of the two empty passwords.
type reader struct {
	*work
	password []byte
	bags     int
	file     File
}

// macMatches checks the file's check value. Under an empty password it proves nothing about who wrote the file, so a kind
// that is unknown here (PBMAC1, say) or none counts as a match: what is wrong then shows when the safes are decrypted.
func (r *reader) macMatches(mac *macData, content []byte) bool {
	h, ok := hashOf(mac.Digest.Algorithm.Algorithm)
	if !ok || len(mac.Digest.Digest) == 0 {
		return true
	}
	key, err := r.derive(h, kdfInput{salt: mac.Salt, password: r.password, iterations: mac.Iterations, id: 3, size: h.New().Size()})
	if err != nil {
		return false
	}
	m := hmac.New(h.New, key)
	m.Write(content)
	return hmac.Equal(m.Sum(nil), mac.Digest.Digest)
}

func (r *reader) safes(authSafe []byte) error {
	var infos []contentInfo
	if err := parse(authSafe, &infos); err != nil {
		return err
	}
	if len(infos) > maxBags {
		return fmt.Errorf("it has more than %d safes", maxBags)
	}
	for _, info := range infos {
		content, err := r.open(info)
		if err != nil {
			return err
		}
		if err := r.safe(content, 0); err != nil {
			return err
		}
	}
	return nil
}

// open returns the content of a safe.
func (r *reader) open(info contentInfo) ([]byte, error) {
	switch info.Type.String() {
	case oidData:
		var content []byte
		err := parse(info.Content.Bytes, &content)
		return content, err
	case oidEncryptedData:
		var e encryptedData
		if err := parse(info.Content.Bytes, &e); err != nil {
			return nil, err
		}
		return r.decrypt(e.Info.Algorithm, e.Info.Content)
	}
	return nil, errors.New("it is encrypted for a recipient's key")
}

func (r *reader) safe(content []byte, depth int) error {
	var bags []safeBag
	if err := parse(content, &bags); err != nil {
		return errPassword // wrongly decrypted content whose padding happened to fit
	}
	if r.bags += len(bags); r.bags > maxBags || depth > maxDepth {
		return fmt.Errorf("it holds more than %d entries", maxBags)
	}
	for _, bag := range bags {
		if err := r.bag(bag, depth); err != nil {
			return err
		}
	}
	return nil
}

// bag adds a key or a certificate to the file's content. Revocation lists and whatever else there may be are passed over.
func (r *reader) bag(bag safeBag, depth int) error {
	switch bag.ID.String() {
	case oidKeyBag:
		return r.key(bag.Value.Bytes)
	case oidShroudedKey:
		var k shroudedKey
		if err := parse(bag.Value.Bytes, &k); err != nil {
			return err
		}
		key, err := r.decrypt(k.Algorithm, k.Encrypted)
		if err != nil {
			return err
		}
		return r.key(key)
	case oidCertBag:
		var c certBag
		if err := parse(bag.Value.Bytes, &c); err != nil {
			return err
		}
		if c.ID.String() == oidX509Cert {
			r.file.Certificates = append(r.file.Certificates, c.Value)
		}
	case oidSafeContents:
		return r.safe(bag.Value.Bytes, depth+1)
	}
	return nil
}

func (r *reader) key(pkcs8 []byte) error {
	var value asn1.RawValue
	if parse(pkcs8, &value) != nil {
		return errPassword
	}
	if len(r.file.Keys) == maxKeys || len(pkcs8) > maxKeySize {
		return fmt.Errorf("it holds more than %d keys, or one larger than %d bytes", maxKeys, maxKeySize)
	}
	r.file.Keys = append(r.file.Keys, canonicalKey(pkcs8))
	return nil
}

// canonicalKey writes a key as Go and OpenSSL do, without the attributes that Key Vault's EC keys carry. Keys that Go does
// not read, such as those of P-256K, are left as they are.
func canonicalKey(pkcs8 []byte) []byte {
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return pkcs8
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pkcs8
	}
	return der
}
