// Package tlspair takes certificates and private keys out of files, in the form that Secrets of type kubernetes.io/tls have: PEM, RSA keys as
// PKCS #1, EC keys as SEC 1, and all others as PKCS #8.
//
// It is bytes in, bytes out: it imports nothing of the module but the reader of PKCS #12, keeps no state, and may be used from any number of
// goroutines. Files are hostile: the work on them is bounded, and errors never say what is in them but for types of PEM blocks.
package tlspair

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keymount/internal/pfx"
)

const (
	typeCertificate = "CERTIFICATE"
	typeEncrypted   = "ENCRYPTED PRIVATE KEY"
	// maxTypes bounds how many types of blocks an error names, and maxType each of them, in bytes.
	maxTypes = 5
	maxType  = 40
	// maxKey is in bytes, a little more than RSA of 8192 bits takes. To read a larger one takes seconds.
	maxKey = 5000
)

// Certificates returns all certificates of a file as PEM, in the file's order: those of a PEM text, else those of a PKCS #12 file without a
// password, leaf first. The budget bounds the work on this and other files together; nil bounds each alone.
func Certificates(file []byte, work *pfx.Budget) ([]byte, error) {
	var out bytes.Buffer
	found := parse(file)
	for _, block := range found.blocks {
		if block.Type != typeCertificate {
			continue
		}
		var der asn1.RawValue
		if rest, err := asn1.Unmarshal(block.Bytes, &der); err != nil || len(rest) > 0 {
			return nil, errors.New("a CERTIFICATE block of the file holds no certificate")
		}
		encode(&out, typeCertificate, block.Bytes)
	}
	if out.Len() > 0 {
		return out.Bytes(), nil
	}
	store, err := found.pkcs12(file, work)
	if err != nil {
		return nil, err
	}
	if len(store.Certificates) == 0 {
		return nil, errors.New("the PKCS #12 file holds no certificate")
	}
	store.OrderChain()
	for _, der := range store.Certificates {
		encode(&out, typeCertificate, der)
	}
	return out.Bytes(), nil
}

// PrivateKey returns the private key of a file as PEM: the last one of a PEM text, else that of a PKCS #12 file without a password; with the
// budget it is as with Certificates.
func PrivateKey(file []byte, work *pfx.Budget) ([]byte, error) {
	found := parse(file)
	for _, block := range slices.Backward(found.blocks) {
		switch {
		case !strings.HasSuffix(block.Type, "PRIVATE KEY"):
		case block.Type == typeEncrypted || block.Headers["DEK-Info"] != "" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return nil, errors.New("the private key is encrypted: store it without a password")
		default:
			return privateKey(block)
		}
	}
	store, err := found.pkcs12(file, work)
	if err != nil {
		return nil, err
	}
	if len(store.Keys) == 0 {
		return nil, errors.New("the PKCS #12 file holds no private key: its certificate may not be exportable")
	}
	return privateKey(&pem.Block{Type: "PRIVATE KEY", Bytes: store.Keys[0]})
}

// privateKey returns the key of a block in its usual form.
func privateKey(block *pem.Block) ([]byte, error) {
	if len(block.Bytes) > maxKey {
		return nil, fmt.Errorf("the private key is larger than %d bytes", maxKey)
	}
	if !slices.Contains([]string{"RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY"}, block.Type) {
		return nil, fmt.Errorf("a private key of the form %q is not known here: store it as PKCS #8", shown(block.Type))
	}
	// Whatever the block says, as crypto/tls has it: tools confuse the three.
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	if err != nil {
		key, err = x509.ParseECPrivateKey(block.Bytes)
	}
	if err != nil { // its text could repeat parts of the key
		return nil, fmt.Errorf("the private key cannot be read, of which its block says that it is a %s", shown(block.Type))
	}
	var out bytes.Buffer
	switch key := key.(type) {
	case *rsa.PrivateKey:
		encode(&out, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return nil, errors.New("the EC key cannot be written: its curve is not known here")
		}
		encode(&out, "EC PRIVATE KEY", der)
	default:
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, errors.New("the private key is of a kind that is not known here")
		}
		encode(&out, "PRIVATE KEY", der)
	}
	return out.Bytes(), nil
}

// encode adds a block without headers.
func encode(out *bytes.Buffer, kind string, der []byte) {
	pem.Encode(out, &pem.Block{Type: kind, Bytes: der}) // a buffer takes everything
}

// A text is what was found of PEM in a file.
type text struct{ blocks []*pem.Block }

func parse(file []byte) (t text) {
	for {
		var block *pem.Block
		if block, file = pem.Decode(file); block == nil {
			return t
		}
		t.blocks = append(t.blocks, block)
	}
}

// pkcs12 reads a file in which PEM had nothing to offer: DER, or the base64 of it that Key Vault answers.
func (t text) pkcs12(file []byte, work *pfx.Budget) (*pfx.File, error) {
	if len(t.blocks) > 0 {
		var types []string
		for _, block := range t.blocks {
			if kind := shown(block.Type); !slices.Contains(types, kind) && len(types) < maxTypes {
				types = append(types, kind)
			}
		}
		return nil, fmt.Errorf("it is not in the file, which holds %s", strings.Join(types, ", "))
	}
	if der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(file))); err == nil {
		file = der
	}
	store, err := pfx.Read(file, work)
	if err != nil {
		return nil, fmt.Errorf("the file is neither PEM nor PKCS #12 that can be read: %w", err)
	}
	return store, nil
}

// shown is a type of a block as an error repeats it: whoever wrote the file chose it.
func shown(kind string) string {
	if len(kind) > maxType {
		kind = kind[:maxType] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, kind)
}
