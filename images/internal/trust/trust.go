// Package trust holds the certification authorities that the images trust: Mozilla's, as a pinned version of a Go module
// carries them, so that they change with a commit and not with the day. Its functions may be called concurrently.
package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// Module is the Go module that the bundle comes from.
const Module = "golang.org/x/crypto/x509roots/fallback"

// PEM returns the authorities in the form of /etc/ssl/certs/ca-certificates.crt. An authority that Mozilla trusts only for
// some certificates is left out, since the form cannot say so.
func PEM() ([]byte, error) {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			return nil, fmt.Errorf("reading the authorities of %s: %w", Module, err)
		}
		fmt.Fprintf(&b, "# %s\n", cert.Subject)
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}); err != nil {
			return nil, fmt.Errorf("writing the authorities of %s: %w", Module, err)
		}
	}
	return b.Bytes(), nil
}
