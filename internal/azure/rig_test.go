package azure_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keymount/internal/azure"
	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
)

const vaultName = "myvault"

// A rig is the Azure provider behind its socket, with the emulator behind it.
type rig struct {
	*emulatortest.Emulator
	*plugin.Client
	// inner is the same provider without the socket.
	inner *azure.Provider
}

func start(t *testing.T, changes ...func(*azure.Config)) *rig {
	t.Helper()
	return startWith(t, emulatortest.Start(t, emulatortest.DefaultSeed(vaultName)), changes...)
}

func startWith(t *testing.T, e *emulatortest.Emulator, changes ...func(*azure.Config)) *rig {
	t.Helper()
	cfg := azure.Config{Transport: e.Transport(), ConstructPEMChain: true}
	for _, change := range changes {
		change(&cfg)
	}
	p, err := azure.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{Emulator: e, Client: serve(t, p), inner: p}
}

// serve puts a provider behind a socket until the test ends.
func serve(t *testing.T, p provider.Provider) *plugin.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "km") // t.TempDir would be too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "azure.sock")
	l, err := plugin.Listen("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	server := plugin.NewServer(p, plugin.Info{RuntimeName: "test", RuntimeVersion: "0"}, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- server.Serve(t.Context(), l) }() // the context ends before Cleanup functions run
	client := plugin.NewClient(plugin.ClientConfig{Socket: socket})
	t.Cleanup(func() {
		client.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return client
}

// request asks for the objects (YAML) by workload identity, with a token that kubelet has handed over.
func (r *rig) request(objects string) *provider.Request {
	token := r.ServiceAccountToken("app", "reader", "pod-1", "uid-1", emulatortest.Audience, time.Hour)
	return &provider.Request{
		Pod: provider.Pod{Namespace: "app", Name: "pod-1", UID: "uid-1", ServiceAccount: "reader"},
		Tokens: map[string]provider.Token{emulatortest.Audience: {
			Value: provider.Sensitive(token), Expires: time.Now().Add(time.Hour), Proof: provider.ProvenByRequest}},
		Parameters: map[string]string{
			"keyvaultName": vaultName, "tenantID": emulatortest.Tenant, "clientID": emulatortest.ClientID, "objects": objects,
		},
		DefaultMode: 0o644,
	}
}

// array writes entries in the form that most classes use.
func array(entries ...string) string {
	out := "array:\n"
	for _, e := range entries {
		out += "  - |\n    " + string(bytes.ReplaceAll([]byte(e), []byte("\n"), []byte("\n    "))) + "\n"
	}
	return out
}

func entry(kind, name string, more ...string) string {
	out := fmt.Sprintf("objectName: %s\nobjectType: %s", name, kind)
	for _, m := range more {
		out += "\n" + m
	}
	return out
}

func (r *rig) mount(t *testing.T, objects string) *provider.Bundle {
	t.Helper()
	b, err := r.Fetch(t.Context(), r.request(objects))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A want is a file as the table says it must be.
type want struct {
	path, id, version string
	mode              fs.FileMode
	contents          []byte
}

func check(t *testing.T, b *provider.Bundle, wants ...want) {
	t.Helper()
	if len(b.Files) != len(wants) || len(b.Versions) != len(wants) {
		t.Fatalf("%d files and %d versions, want %d: %v", len(b.Files), len(b.Versions), len(wants), b.Files)
	}
	for i, w := range wants {
		f, v := b.Files[i], b.Versions[i]
		if w.mode == 0 {
			w.mode = 0o644
		}
		if f.Path != w.path || f.Mode != w.mode || v.ID != w.id || v.Version != w.version {
			t.Errorf("file %d is %s %04o, object %+v, want %s %04o %s %s", i, f.Path, f.Mode, v, w.path, w.mode, w.id, w.version)
		}
		if !bytes.Equal(f.Contents, w.contents) {
			t.Errorf("%s has %d bytes, want %d; they begin to differ at byte %d", f.Path, len(f.Contents), len(w.contents), firstDifference(f.Contents, w.contents))
		}
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// ofCertificate stores a secret as it is behind a certificate, whatever its value.
func (r *rig) ofCertificate(t *testing.T, name, contentType, value string) string {
	t.Helper()
	id, err := r.Server.PutSecret(vaultName, emulator.Secret{Name: name, SecretVersion: emulator.SecretVersion{
		Value: value, ContentType: contentType, Managed: true, KID: "keys/" + name + "/0123456789abcdef0123456789abcdef"}})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// certificate imports a certificate with its key; the secret's value is the very file.
func (r *rig) certificate(t *testing.T, name, value string) string {
	t.Helper()
	id, err := r.Server.PutCertificate(vaultName, emulator.Certificate{Name: name, Value: value})
	if err != nil {
		t.Fatal(err)
	}
	return id
}
