// Package emulatortest starts an emulator for a test: real TLS on the loopback interface or an address of a test network, under the real host names, gone when the test ends.
//
// It imports internal/emulator and its front. An Emulator may be used from any number of goroutines.
package emulatortest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"keymount/internal/emulator"
	"keymount/internal/emulator/front"
)

// Names of the default seed.
const (
	Tenant       = "11111111-1111-4111-8111-111111111111"
	ClientID     = "22222222-2222-4222-8222-222222222222"
	ClientSecret = "emulated-client-secret"
	Issuer       = "https://oidc.cluster.example/demo/"
	Audience     = "api://AzureADTokenExchange"
)

// An Emulator is a running one.
type Emulator struct {
	// Server is for seeding, faults and the request log.
	Server *emulator.Server
	// CAFile holds the certificate to trust, in PEM; ProxyURL leads to the emulator: what SSL_CERT_FILE and HTTPS_PROXY are to be
	// for a child process.
	CAFile   string
	ProxyURL string

	t     testing.TB
	front *front.Front
}

// signingKey signs the access tokens of all emulators of a test binary: a new RSA key takes a tenth of a second.
var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return key
})

// SigningKey is the key of all emulators of this test binary, for tests that make a Server by themselves.
func SigningKey() *rsa.PrivateKey { return signingKey() }

// DefaultSeed has one tenant with one application, which has a client secret and trusts the service account app/reader of the cluster Issuer, and one
// empty vault of the public cloud by the name given.
func DefaultSeed(vault string) emulator.Seed {
	return emulator.Seed{
		Issuers: []emulator.IssuerSeed{{URL: Issuer}},
		Tenants: []emulator.Tenant{{ID: Tenant, Apps: []emulator.App{{ClientID: ClientID, ClientSecret: ClientSecret,
			Federated: []emulator.Federated{{Issuer: Issuer, Subject: "system:serviceaccount:app:reader"}}}}}},
		Vaults: []emulator.Vault{{Name: vault}},
	}
}

// Start runs an emulator with the seed until the test ends.
func Start(t testing.TB, seed emulator.Seed) *Emulator {
	t.Helper()
	return StartWith(t, seed, emulator.Options{})
}

// StartWith is Start with options, such as a clock.
func StartWith(t testing.TB, seed emulator.Seed, opt emulator.Options) *Emulator {
	t.Helper()
	return run(t, seed, opt, front.Start)
}

// StartAt is Start with the address where TLS is spoken, for clients that find it by DNS under the real host names.
func StartAt(t testing.TB, seed emulator.Seed, address string) *Emulator {
	t.Helper()
	return run(t, seed, emulator.Options{}, func(s *emulator.Server) (*front.Front, error) { return front.StartAt(s, address) })
}

func run(t testing.TB, seed emulator.Seed, opt emulator.Options, start func(*emulator.Server) (*front.Front, error)) *Emulator {
	t.Helper()
	if opt.SigningKey == nil {
		opt.SigningKey = signingKey()
	}
	e := &Emulator{Server: emulator.New(opt), t: t}
	if err := e.Server.Load(seed); err != nil {
		t.Fatalf("loading the seed: %v", err)
	}
	f, err := start(e.Server)
	if err != nil {
		t.Fatalf("starting the emulator: %v", err)
	}
	e.front, e.ProxyURL = f, f.ProxyURL()
	e.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(e.CAFile, f.CertPEM(), 0o600); err != nil {
		t.Fatalf("writing the CA file: %v", err)
	}
	t.Cleanup(func() {
		e.Server.ClearFault(0)
		f.Stop()
	})
	return e
}

// Transport returns a new transport that reaches the emulator for every host name that it serves, by HTTP/2. Its idle connections are closed
// when the test ends.
func (e *Emulator) Transport() *http.Transport { return e.transport(true) }

// TransportHTTP1 is Transport without HTTP/2.
func (e *Emulator) TransportHTTP1() *http.Transport { return e.transport(false) }

func (e *Emulator) transport(http2 bool) *http.Transport {
	tr := e.front.Transport(http2)
	e.t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// Requests are the counts by kind since the start or the last Server.ResetRequests.
func (e *Emulator) Requests() emulator.Counts { return e.Server.Requests() }

// Env is the environment with which a child process reaches the emulator, to be appended to others.
func (e *Emulator) Env() []string { return front.Env(e.ProxyURL, e.CAFile) }

// ServiceAccountToken makes a token of the cluster Issuer for a pod, as the API server does.
func (e *Emulator) ServiceAccountToken(namespace, serviceAccount, podName, podUID, audience string, lifetime time.Duration) string {
	e.t.Helper()
	is := e.Server.Issuer(Issuer)
	if is == nil {
		e.t.Fatalf("the seed does not have the issuer %s: use Server.Issuer(url).Token", Issuer)
	}
	token, err := is.Token(emulator.ServiceAccount{Namespace: namespace, Name: serviceAccount, PodName: podName, PodUID: podUID}, []string{audience}, lifetime)
	if err != nil {
		e.t.Fatalf("signing a token: %v", err)
	}
	return token
}

// SetFault arms a fault until the function returned, or the test's end, disarms it.
func (e *Emulator) SetFault(f emulator.Fault) (clear func()) {
	e.t.Helper()
	id, err := e.Server.SetFault(f)
	if err != nil {
		e.t.Fatalf("setting a fault: %v", err)
	}
	return func() { e.Server.ClearFault(id) }
}

// PutSecret stores a new version of a secret in a vault and returns its id.
func (e *Emulator) PutSecret(vault, name, value string) string {
	e.t.Helper()
	id, err := e.Server.PutSecret(vault, emulator.Secret{Name: name, SecretVersion: emulator.SecretVersion{Value: value}})
	if err != nil {
		e.t.Fatalf("storing secret %s: %v", name, err)
	}
	return id
}

// Await waits until n requests of a kind or group have arrived, for at most ten seconds.
func (e *Emulator) Await(kind string, n int) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 10*time.Second)
	defer cancel()
	if err := e.Server.Await(ctx, kind, n); err != nil {
		e.t.Fatalf("waiting for %d requests of kind %q: %v; there were %v", n, kind, err, e.Requests())
	}
}

// CertPEM is the certificate to trust.
func (e *Emulator) CertPEM() []byte { return e.front.CertPEM() }

// Addr is where the emulator speaks TLS for every host name, as host:port.
func (e *Emulator) Addr() string { return e.front.Addr() }
