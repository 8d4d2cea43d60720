// Package encode turns what Key Vault holds into the bytes of files: secrets by their encoding, certificates with their
// keys from PEM or PKCS #12, public keys, and single certificates.
//
// It owns every conversion: bytes in, bytes out. It imports the standard library and the reader of PKCS #12 only, keeps no state, logs nothing, and
// may be used from any number of goroutines. Inputs are the vault's and so may be anything: sizes, counts and the work
// that a file asks for are bounded. An error says what is wrong and where, never what the secret is. Outputs may share
// memory with inputs, which the caller therefore leaves unchanged.
package encode

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"keymount/internal/pfx"
)

// Encoding says how the bytes of a file are written in a secret's value.
type Encoding int

const (
	// UTF8 is the value as it stands.
	UTF8 Encoding = iota
	// Hex is two digits for a byte.
	Hex
	// Base64 is standard base64 with padding (RFC 4648 4); line ends in it are skipped.
	Base64
)

// A Secret is a secret as the vault answers it.
type Secret struct {
	Value       []byte
	ContentType string
	// OfCertificate says that the secret is the other side of a certificate: the answer has a kid (Key Vault REST: Get
	// Secret). What looks like a certificate in a plain secret is left alone.
	OfCertificate bool
}

// Options are what the class and the operator ask for.
type Options struct {
	Encoding Encoding
	// KeepPFX leaves PKCS #12 as it is rather than converting it to PEM.
	KeepPFX bool
	// OrderChain puts the certificates of a converted PKCS #12 file into the order leaf, intermediates, root.
	OrderChain bool
	// Split asks for the certificates and the key on their own as well.
	Split bool
	// Budget bounds the work on this and other secrets together; nil bounds each alone.
	Budget *pfx.Budget
}

// Files are the contents of the files that one secret becomes.
type Files struct {
	Whole []byte
	// Certificates and Key are PEM, and nil where there is none or a split was not asked for.
	Certificates, Key []byte
	// Warnings are for people: one sentence each, without secrets.
	Warnings []string
}

const (
	contentPEM    = "application/x-pem-file"
	contentPKCS12 = "application/x-pkcs12"
)

// Do converts a secret.
func (s Secret) Do(opt Options) (Files, error) {
	if !s.OfCertificate {
		whole, err := decode(s.Value, opt.Encoding)
		return Files{Whole: whole}, err
	}
	switch {
	case strings.EqualFold(s.ContentType, contentPEM):
		return s.fromPEM(opt)
	case !strings.EqualFold(s.ContentType, contentPKCS12):
		return Files{}, fmt.Errorf("failed to get certificate. unknown content type '%s'", show(s.ContentType))
	case opt.KeepPFX:
		return s.keepPFX(opt)
	}
	return s.fromPFX(opt)
}

// fromPEM keeps the value's bytes: its order is the owner's.
func (s Secret) fromPEM(opt Options) (Files, error) {
	whole, err := decode(s.Value, opt.Encoding)
	if err != nil {
		return Files{}, err
	}
	f := Files{Whole: whole}
	if opt.Split {
		f.split(s.Value)
	}
	return f, nil
}

func (s Secret) fromPFX(opt Options) (Files, error) {
	text, warnings, err := pfxToPEM(s.Value, opt)
	if err != nil {
		return Files{}, err
	}
	whole, err := decode(text, opt.Encoding)
	if err != nil {
		return Files{}, err
	}
	f := Files{Whole: whole, Warnings: warnings}
	if opt.Split {
		f.split(text)
	}
	return f, nil
}

// keepPFX leaves the file itself alone. Whether it splits depends on a flag of the operator, so that a file that cannot be
// read is a warning here and not an error. The encoding is that of the PFX; the split files are PEM in any case.
func (s Secret) keepPFX(opt Options) (Files, error) {
	whole, err := decode(s.Value, opt.Encoding)
	if err != nil {
		return Files{}, err
	}
	f := Files{Whole: whole}
	if !opt.Split {
		return f, nil
	}
	text, warnings, err := pfxToPEM(s.Value, opt)
	if err != nil {
		f.Warnings = []string{"the PFX file was not split into certificate and key: " + err.Error()}
		return f, nil
	}
	f.Warnings = warnings
	f.split(text)
	return f, nil
}

// split sorts the blocks of a PEM text: certificates to the one side, everything else to the other.
func (f *Files) split(text []byte) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			f.Certificates = append(f.Certificates, pem.EncodeToMemory(block)...)
		} else {
			f.Key = append(f.Key, pem.EncodeToMemory(block)...)
		}
	}
	if f.Certificates == nil {
		f.Warnings = append(f.Warnings, "it has no certificate in PEM, so there is no file for it")
	}
	if f.Key == nil {
		f.Warnings = append(f.Warnings, "it has no private key, as that of a non-exportable certificate has none, so there is no file for it")
	}
}

func decode(value []byte, encoding Encoding) ([]byte, error) {
	switch encoding {
	case UTF8:
		return value, nil
	case Hex:
		return decodeHex(value)
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(value)))
	n, err := base64.StdEncoding.Decode(out, value)
	if err != nil {
		return nil, errors.New(err.Error()) // a position only, as in base64.CorruptInputError
	}
	return out[:n], nil
}

// decodeHex finds the wrong place itself since the library's error shows the byte that stands there.
func decodeHex(value []byte) ([]byte, error) {
	out := make([]byte, hex.DecodedLen(len(value)))
	n, err := hex.Decode(out, value)
	if errors.Is(err, hex.ErrLength) {
		return nil, err
	}
	if err != nil {
		at := 2 * n
		if isHex(value[at]) {
			at++
		}
		return nil, fmt.Errorf("encoding/hex: invalid byte at input byte %d", at)
	}
	return out, nil
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
}

// show makes text from a vault fit for a message.
func show(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
