package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
)

// With every log switched on, the SDK's too, whatever a mount comes to: nothing that the program prints or answers, but the
// files themselves, holds a secret value, a client secret or a token.
func TestNothingPrintedIsSecret(t *testing.T) {
	t.Parallel()
	const value, wrong = "the-value-of-the-secret", "a-wrong-client-secret"
	for _, format := range []string{"--log-format-json=false", "--log-format-json=true"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			e := emulatortest.Start(t, emulatortest.DefaultSeed("myvault"))
			e.PutSecret("myvault", "alpha", value)
			metrics := freePort(t)
			p := start(t, e, "-v=10", format, "--prometheus-port="+metrics)
			said := &bytes.Buffer{}
			served := 0
			patience := time.Minute
			ask := func(req *provider.Request) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				bundle, err := p.client.Fetch(ctx, req)
				if err == nil && bytes.Contains(bundle.Files[0].Contents, []byte(value)) {
					served++
				}
				fmt.Fprintf(said, "%v %+v %#v %v\n", err, provider.ErrorsOf(err), bundle, bundle)
			}
			askAll := func() {
				ask(principal(emulatortest.ClientSecret))
				ask(principal(wrong))
				for _, alter := range []func(string) string{func(s string) string { return s }, func(s string) string { return s + "x" }} {
					for _, proof := range []provider.Proof{provider.Unproven, provider.ProvenByRequest} {
						ask(workload(e, alter, proof))
					}
				}
			}
			askAll()
			if served < 3 {
				t.Fatalf("%d mounts succeeded, want at least 3:\n%s", served, said)
			}
			patience = 200 * time.Millisecond // most of what follows is tried again for as long as the caller waits
			for _, f := range odd(value) {
				clear := e.SetFault(f)
				askAll()
				clear()
			}
			measured := scraped(t, metrics)
			printed := p.stop(t) + said.String() + measured
			for _, want := range []string{"call served", "call failed", "Authorization: REDACTED", `keyvault_request_count{error="",object_name="",object_type="secret"`,
				`keyvault_request_count{error="denied"`, `keymount_provider_token_fetches_total{provider="azure",result="failed"} `} {
				if !strings.Contains(printed, want) {
					t.Fatalf("the log has no %q, so the test shows nothing:\n%s", want, printed)
				}
			}
			for what, secret := range map[string]string{"value": value, "client secret": emulatortest.ClientSecret, "wrong client secret": wrong,
				"token": "eyJ", "value in base64": base64.StdEncoding.EncodeToString([]byte(value))[:20], "value in hex": fmt.Sprintf("%x", value)} {
				if i := strings.Index(printed, secret); i >= 0 {
					t.Errorf("%s is in: ...%s", what, printed[max(0, i-300):min(len(printed), i+100)])
				}
			}
		})
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

func scraped(t *testing.T, port string) string {
	t.Helper()
	resp, err := http.Get("http://127.0.0.1:" + port + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 1000 {
		t.Errorf("%d lines of metrics", n)
	}
	return string(text)
}

// odd are faults of Entra ID and of the vault.
func odd(value string) []emulator.Fault {
	var faults []emulator.Fault
	for _, kind := range []string{emulator.GroupVault, emulator.GroupToken} {
		for _, f := range []emulator.Fault{
			{Do: emulator.ActTypes}, {Do: emulator.ActMissing, Member: "value"}, {Do: emulator.ActMissing, Member: "id"},
			{Do: emulator.ActMissing, Member: "access_token"}, {Do: emulator.ActOversize}, {Do: emulator.ActHTML},
			{Do: emulator.ActUnauthorized}, {Do: emulator.ActForbidden}, {Do: emulator.ActCut}, {Do: emulator.ActStatus, Status: 503},
			{Do: emulator.ActBody, Body: `{"value":"` + value + `","access_token":"eyJ` + value + `"`},
			{Do: emulator.ActBody, Body: `{"value":{"` + value + `":1},"access_token":["eyJ` + value + `"],"id":"https://` + value + `"}`},
		} {
			f.Kind = kind
			faults = append(faults, f)
		}
	}
	return faults
}

func principal(secret string) *provider.Request {
	return &provider.Request{
		Pod:         provider.Pod{Namespace: "app", Name: "reader", UID: "uid", ServiceAccount: "reader"},
		Secrets:     map[string]provider.Sensitive{"clientid": emulatortest.ClientID, "clientsecret": provider.Sensitive(secret)},
		Parameters:  class(),
		DefaultMode: 0o644,
	}
}

func workload(e *emulatortest.Emulator, alter func(string) string, proof provider.Proof) *provider.Request {
	req := principal("")
	req.Secrets = nil
	req.Parameters["clientID"] = emulatortest.ClientID
	token := alter(e.ServiceAccountToken("app", "reader", "reader", "uid", emulatortest.Audience, time.Hour))
	req.Tokens = map[string]provider.Token{emulatortest.Audience: {Value: provider.Sensitive(token), Proof: proof}}
	return req
}

func class() map[string]string {
	return map[string]string{"keyvaultName": "myvault", "tenantID": emulatortest.Tenant,
		"objects": "array:\n  - objectName: alpha\n    objectType: secret\n"}
}

// A running keymount-azure.
type running struct {
	client         *plugin.Client
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
}

func start(t *testing.T, e *emulatortest.Emulator, args ...string) *running {
	t.Helper()
	dir, err := os.MkdirTemp("", "km") // t.TempDir would be too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "azure.sock")
	p := &running{cmd: exec.Command("keymount-azure", append([]string{"--endpoint", "unix://" + socket, "--healthz-port=0", "--prometheus-port=0"}, args...)...)}
	p.cmd.Env = append(append(os.Environ(), e.Env()...), "GORACE=atexit_sleep_ms=0", "AZURE_SDK_GO_LOGGING=all")
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.client = plugin.NewClient(plugin.ClientConfig{Socket: socket, ConnectWithin: time.Minute})
	t.Cleanup(func() {
		p.client.Close()
		p.cmd.Process.Kill()
		os.RemoveAll(dir)
	})
	return p
}

// stop ends the program and returns all that it printed.
func (p *running) stop(t *testing.T) string {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("keymount-azure: %v", err)
	}
	return p.stdout.String() + p.stderr.String()
}
