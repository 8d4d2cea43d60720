package pfx

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"hash"
	"sync/atomic"
)

// maxWork is how many rounds of key derivation one file may ask for in all, some tenths of a second of work. The service
// writes 2,000 for each of its derivations and OpenSSL 2,048; more would protect nothing under an empty password.
const maxWork = 2_000_000

var (
	errWork      = errors.New("it asks for more rounds of key derivation than can be spent on it")
	errAlgorithm = errors.New("it is encrypted in a way that is not known here")
)

// A Budget bounds the work on many files together. It may be used from any number of goroutines.
type Budget struct{ left atomic.Int64 }

// NewBudget returns a budget for so many rounds of key derivation. A file as Key Vault writes it takes about 20,000.
func NewBudget(rounds int64) *Budget {
	b := &Budget{}
	b.left.Store(rounds)
	return b
}

// work counts rounds over both tries of a file.
type work struct {
	rounds int
	budget *Budget // may be nil
}

func (w *work) spend(iterations, blocks int) error {
	if iterations < 1 || iterations > maxWork || w.rounds+iterations*blocks > maxWork ||
		w.budget != nil && w.budget.left.Add(-int64(iterations*blocks)) < 0 {
		w.rounds = maxWork + 1
		return errWork
	}
	w.rounds += iterations * blocks
	return nil
}

func (w *work) exceeded() bool { return w.rounds > maxWork }

// hashOf knows the digests of RFC 8017 A.2.4 and the HMACs of RFC 8018 B.1.
func hashOf(oid asn1.ObjectIdentifier) (crypto.Hash, bool) {
	switch oid.String() {
	case "1.3.14.3.2.26", "1.2.840.113549.2.7":
		return crypto.SHA1, true
	case "2.16.840.1.101.3.4.2.4", "1.2.840.113549.2.8":
		return crypto.SHA224, true
	case "2.16.840.1.101.3.4.2.1", "1.2.840.113549.2.9":
		return crypto.SHA256, true
	case "2.16.840.1.101.3.4.2.2", "1.2.840.113549.2.10":
		return crypto.SHA384, true
	case "2.16.840.1.101.3.4.2.3", "1.2.840.113549.2.11":
		return crypto.SHA512, true
	}
	return 0, false
}

// decrypt undoes CBC under a key from the password, and its padding.
func (r *reader) decrypt(algorithm pkix.AlgorithmIdentifier, encrypted []byte) ([]byte, error) {
	block, iv, err := r.cipher(algorithm)
	if err != nil {
		return nil, err
	}
	size := block.BlockSize()
	if len(iv) != size || len(encrypted) == 0 || len(encrypted)%size != 0 {
		return nil, errors.New("an encrypted part of it has a wrong length")
	}
	out := make([]byte, len(encrypted))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, encrypted)
	pad := int(out[len(out)-1])
	if pad == 0 || pad > size || !bytes.Equal(out[len(out)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, errPassword
	}
	return out[:len(out)-pad], nil
}

// cipher returns the block cipher and the first block for an algorithm of RFC 7292 appendix C, or of PBES2 (RFC 8018 6.2).
func (r *reader) cipher(algorithm pkix.AlgorithmIdentifier) (cipher.Block, []byte, error) {
	var newCipher func(key []byte) (cipher.Block, error)
	var keySize int
	switch algorithm.Algorithm.String() {
	case "1.2.840.113549.1.5.13":
		return r.pbes2(algorithm.Parameters.FullBytes)
	case "1.2.840.113549.1.12.1.3":
		newCipher, keySize = des.NewTripleDESCipher, 24
	case "1.2.840.113549.1.12.1.4":
		newCipher, keySize = twoKeyTripleDES, 16
	case "1.2.840.113549.1.12.1.5":
		newCipher, keySize = newRC2, 16
	case "1.2.840.113549.1.12.1.6":
		newCipher, keySize = newRC2, 5
	default:
		return nil, nil, errAlgorithm
	}
	var p struct {
		Salt       []byte
		Iterations int
	}
	if err := parse(algorithm.Parameters.FullBytes, &p); err != nil {
		return nil, nil, err
	}
	in := kdfInput{salt: p.Salt, password: r.password, iterations: p.Iterations, id: 1, size: keySize}
	key, err := r.derive(crypto.SHA1, in)
	if err != nil {
		return nil, nil, err
	}
	in.id, in.size = 2, 8
	iv, err := r.derive(crypto.SHA1, in)
	if err != nil {
		return nil, nil, err
	}
	block, err := newCipher(key)
	return block, iv, err
}

func twoKeyTripleDES(key []byte) (cipher.Block, error) {
	return des.NewTripleDESCipher(append(key, key[:8]...))
}

// pbes2 takes the password as UTF-8 (RFC 8018 3), of which an empty one has no bytes whichever way it is written.
func (r *reader) pbes2(parameters []byte) (cipher.Block, []byte, error) {
	var p struct {
		KDF, Encryption pkix.AlgorithmIdentifier
	}
	var kdf struct {
		Salt       asn1.RawValue
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	if err := parse(parameters, &p); err != nil {
		return nil, nil, err
	}
	if p.KDF.Algorithm.String() != "1.2.840.113549.1.5.12" { // PBKDF2
		return nil, nil, errAlgorithm
	}
	if err := parse(p.KDF.Parameters.FullBytes, &kdf); err != nil {
		return nil, nil, err
	}
	h := crypto.SHA1 // PBKDF2-params: DEFAULT algid-hmacWithSHA1
	if kdf.PRF.Algorithm != nil {
		var ok bool
		if h, ok = hashOf(kdf.PRF.Algorithm); !ok {
			return nil, nil, errAlgorithm
		}
	}
	newCipher, size := aes.NewCipher, 0
	switch p.Encryption.Algorithm.String() {
	case "2.16.840.1.101.3.4.1.2":
		size = 16
	case "2.16.840.1.101.3.4.1.22":
		size = 24
	case "2.16.840.1.101.3.4.1.42":
		size = 32
	case "1.2.840.113549.3.7":
		newCipher, size = des.NewTripleDESCipher, 24
	default:
		return nil, nil, errAlgorithm
	}
	if kdf.Salt.Tag != asn1.TagOctetString || kdf.Salt.Class != asn1.ClassUniversal {
		return nil, nil, errAlgorithm
	}
	if err := r.spend(kdf.Iterations, 2*(1+(size-1)/h.Size())); err != nil { // an HMAC is two digests
		return nil, nil, err
	}
	key, err := pbkdf2.Key(func() hash.Hash { return h.New() }, "", kdf.Salt.Bytes, kdf.Iterations, size)
	if err != nil {
		return nil, nil, errAlgorithm
	}
	block, err := newCipher(key)
	return block, p.Encryption.Parameters.Bytes, err
}

type kdfInput struct {
	salt, password []byte
	iterations     int
	id             byte // 1 for keys, 2 for first blocks, 3 for check values
	size           int  // bytes wanted
}

// derive is the key derivation of RFC 7292 appendix B.2.
func (w *work) derive(h crypto.Hash, in kdfInput) ([]byte, error) {
	d := h.New()
	u, v := d.Size(), d.BlockSize()
	blocks := (in.size + u - 1) / u
	if err := w.spend(in.iterations, blocks); err != nil {
		return nil, err
	}
	i := append(fill(in.salt, v), fill(in.password, v)...)
	diversifier := bytes.Repeat([]byte{in.id}, v)
	var out []byte
	for range blocks {
		d.Reset()
		d.Write(diversifier)
		d.Write(i)
		a := d.Sum(nil)
		for range in.iterations - 1 {
			d.Reset()
			d.Write(a)
			a = d.Sum(a[:0])
		}
		out = append(out, a...)
		b := fill(a, v)
		for j := 0; j < len(i); j += v {
			addOne(i[j:j+v], b)
		}
	}
	return out[:in.size], nil
}

// fill repeats b to a multiple of v bytes, none if b is empty.
func fill(b []byte, v int) []byte {
	if len(b) == 0 {
		return nil
	}
	n := v * ((len(b) + v - 1) / v)
	return bytes.Repeat(b, n/len(b)+1)[:n:n]
}

// addOne sets a to a + b + 1, as numbers of their length.
func addOne(a, b []byte) {
	carry := 1
	for k := len(a) - 1; k >= 0; k-- {
		carry += int(a[k]) + int(b[k])
		a[k] = byte(carry)
		carry >>= 8
	}
}
