package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"

	"keymount/internal/azure/identity"
	"keymount/internal/emulator"
	"keymount/internal/emulator/front"
)

const (
	tenant     = "11111111-1111-4111-8111-111111111111"
	issuer     = "https://oidc.cluster.example/bench/"
	audience   = "api://AzureADTokenExchange"
	vaultName  = "benchvault"
	secrets    = 20
	pods       = 100
	identities = 10

	vaultLatency     = 20 * time.Millisecond
	tokenLatency     = 80 * time.Millisecond
	discoveryLatency = 30 * time.Millisecond
)

func clientID(i int) string { return fmt.Sprintf("22222222-2222-4222-8222-%012d", i) }

func account(i int) string { return fmt.Sprintf("account-%d", i) }

func secretName(i int) string { return fmt.Sprintf("secret-%d", i) }

// A welcome is what the emulator's process says first.
type welcome struct {
	Addr string `json:"addr"`
	CA   []byte `json:"ca"`
	// Tokens are service account tokens by identity and pod.
	Tokens [][]string `json:"tokens"`
}

// serveEmulator answers each line on in ("reset" or "counts") with a line of JSON on out, until in ends.
func serveEmulator(in io.Reader, out io.Writer) error {
	server := emulator.New(emulator.Options{})
	seed := emulator.Seed{Issuers: []emulator.IssuerSeed{{URL: issuer}}, Tenants: []emulator.Tenant{{ID: tenant}}, Vaults: []emulator.Vault{{Name: vaultName}}}
	for i := range identities {
		seed.Tenants[0].Apps = append(seed.Tenants[0].Apps, emulator.App{ClientID: clientID(i),
			Federated: []emulator.Federated{{Issuer: issuer, Subject: "system:serviceaccount:bench:" + account(i)}}})
	}
	for i := range secrets {
		seed.Vaults[0].Secrets = append(seed.Vaults[0].Secrets, emulator.Secret{Name: secretName(i),
			SecretVersion: emulator.SecretVersion{Value: fmt.Sprintf("the value of secret %d", i)}})
	}
	if err := server.Load(seed); err != nil {
		return err
	}
	for group, latency := range map[string]time.Duration{emulator.GroupVault: vaultLatency, emulator.GroupToken: tokenLatency, emulator.GroupDiscovery: discoveryLatency} {
		if err := server.SetLatency(group, latency); err != nil {
			return err
		}
	}
	f, err := front.Start(server)
	if err != nil {
		return err
	}
	defer f.Stop()
	hello := welcome{Addr: f.Addr(), CA: f.CertPEM()}
	for i := range identities {
		var tokens []string
		for pod := range pods {
			token, err := server.Issuer(issuer).Token(emulator.ServiceAccount{Namespace: "bench", Name: account(i),
				PodName: podName(i, pod), PodUID: podName(i, pod)}, []string{audience}, time.Hour)
			if err != nil {
				return err
			}
			tokens = append(tokens, token)
		}
		hello.Tokens = append(hello.Tokens, tokens)
	}
	say := json.NewEncoder(out)
	if err := say.Encode(hello); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if lines.Text() == "reset" {
			server.ResetRequests()
		}
		if err := say.Encode(server.Requests()); err != nil {
			return err
		}
	}
	return nil
}

func podName(i, pod int) string { return fmt.Sprintf("pod-%d-%d", i, pod) }

// An emulated is the emulator in its process.
type emulated struct {
	welcome
	roots   *x509.CertPool
	process *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
}

func startEmulator(ctx context.Context) (*emulated, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	e := &emulated{process: exec.CommandContext(ctx, self, "-emulate"), roots: x509.NewCertPool()}
	e.process.Stderr = os.Stderr
	if e.in, err = e.process.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting the emulator: %w", err)
	}
	out, err := e.process.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the emulator: %w", err)
	}
	if err := e.process.Start(); err != nil {
		return nil, fmt.Errorf("starting the emulator: %w", err)
	}
	e.out = json.NewDecoder(out)
	if err := e.out.Decode(&e.welcome); err != nil {
		e.stop()
		return nil, fmt.Errorf("starting the emulator: %w", err)
	}
	e.roots.AppendCertsFromPEM(e.CA)
	return e, nil
}

func (e *emulated) stop() {
	e.in.Close() // it ends when its input does
	_ = e.process.Wait()
}

// requests asks for the counts since the last reset.
func (e *emulated) requests(command string) (emulator.Counts, error) {
	if _, err := fmt.Fprintln(e.in, command); err != nil {
		return nil, fmt.Errorf("asking the emulator: %w", err)
	}
	var counts emulator.Counts
	if err := e.out.Decode(&counts); err != nil {
		return nil, fmt.Errorf("asking the emulator: %w", err)
	}
	return counts, nil
}

// transport is the product's, led to the emulator under every host name.
func (e *emulated) transport() *http.Transport {
	t := identity.NewTransport()
	t.Proxy = nil
	t.TLSClientConfig = &tls.Config{RootCAs: e.roots, MinVersion: tls.VersionTLS12}
	t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, e.Addr)
	}
	return t
}
