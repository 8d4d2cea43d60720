//go:build integration && linux

package apiserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// adminUser is who a test is when it acts for itself. Its group needs no RBAC rule.
const (
	adminUser  = "keymount-test-admin"
	adminGroup = "system:masters"
)

// A pki is the files that the server and its administrator prove themselves with. It is as good as the folder is private.
type pki struct {
	caCert                string
	serverCert, serverKey string
	adminCert, adminKey   string
	tokenKey              string // signs service account tokens
}

func newPKI(dir string) (*pki, error) {
	path := func(name string) string { return filepath.Join(dir, name) }
	p := &pki{
		caCert:     path("ca.crt"),
		serverCert: path("server.crt"), serverKey: path("server.key"),
		adminCert: path("admin.crt"), adminKey: path("admin.key"),
		tokenKey: path("token.key"),
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, fmt.Errorf("making the test CA: %w", err)
	}
	// Service account tokens of real clusters are signed with RSA.
	token, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("making the token key: %w", err)
	}
	if err := writeKey(p.tokenKey, token); err != nil {
		return nil, err
	}
	if err := writePEM(p.caCert, "CERTIFICATE", ca.cert.Raw); err != nil {
		return nil, err
	}
	if err := ca.issue(p.serverCert, p.serverKey, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return nil, err
	}
	return p, ca.issue(p.adminCert, p.adminKey, &x509.Certificate{
		Subject:     pkix.Name{CommonName: adminUser, Organization: []string{adminGroup}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "keymount test CA"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	limit(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, key}, err
}

func (a *authority) issue(certFile, keyFile string, template *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	limit(template)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return fmt.Errorf("issuing %s: %w", filepath.Base(certFile), err)
	}
	if err := writeKey(keyFile, key); err != nil {
		return err
	}
	return writePEM(certFile, "CERTIFICATE", der)
}

// limit gives a certificate a life that outlasts any test and survives a clock that runs a little late.
func limit(c *x509.Certificate) {
	c.NotBefore = time.Now().Add(-time.Hour)
	c.NotAfter = time.Now().Add(48 * time.Hour)
}

func writeKey(path string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
