//go:build integration && linux

package apiserver

import (
	"errors"
	"path/filepath"

	"keymount/test/controlplane"
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
	ca, err := controlplane.NewAuthority()
	if err != nil {
		return nil, err
	}
	server, err := ca.Server("kube-apiserver", "127.0.0.1")
	if err != nil {
		return nil, err
	}
	admin, err := ca.Client(adminUser, adminGroup)
	if err != nil {
		return nil, err
	}
	token, err := controlplane.NewTokenKey()
	if err != nil {
		return nil, err
	}
	return p, errors.Join(
		controlplane.WriteFile(p.caCert, ca.CertPEM()),
		controlplane.WriteFile(p.tokenKey, token),
		server.Write(dir, "server"),
		admin.Write(dir, "admin"),
	)
}
