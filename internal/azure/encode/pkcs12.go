package encode

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"

	"keymount/internal/pfx"
)

// pfxToPEM converts base64 of PKCS #12 without a password: the keys first, as PKCS #8, then the certificates.
func pfxToPEM(value []byte, opt Options) (text []byte, warnings []string, err error) {
	der, err := decode(value, Base64)
	if err != nil {
		return nil, nil, fmt.Errorf("reading PKCS #12: %w", err)
	}
	s, err := pfx.Read(der, opt.Budget)
	if err != nil {
		return nil, nil, fmt.Errorf("reading PKCS #12: %w", err)
	}
	if len(s.Keys)+len(s.Certificates) == 0 {
		return nil, nil, errors.New("reading PKCS #12: it holds neither key nor certificate")
	}
	if len(s.Certificates) == 0 {
		warnings = append(warnings, "the PKCS #12 file holds a key and no certificate")
	}
	if opt.OrderChain {
		if !s.OrderChain() {
			warnings = append(warnings,
				"certificate chain is not complete due to missing intermediate/root certificates in the cert from key vault; the certificates keep their order")
		}
	}
	var out bytes.Buffer
	for _, k := range s.Keys {
		pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: k}) // a buffer takes everything
	}
	for _, c := range s.Certificates {
		pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c})
	}
	return out.Bytes(), warnings, nil
}
