package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"keymount/internal/azure/azuretest"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
	"keymount/internal/provider/providertest"
)

// The suite that every provider passes, against the program as it is deployed: a process of its own that finds Azure by its
// real names, and its socket.
func TestSuite(t *testing.T) {
	t.Parallel()
	providertest.Run(t, func(t *testing.T) *providertest.Harness { return azuretest.NewHarness(t, program) })
}

// program runs keymount-azure until the test ends, and then expects it to have stopped cleanly.
func program(t *testing.T, e *emulatortest.Emulator) provider.Provider {
	dir, err := os.MkdirTemp("", "km") // t.TempDir would be too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "azure.sock")
	cmd := exec.Command("keymount-azure", "--endpoint", "unix://"+socket, "--share-reads-for", "0s", "--healthz-port=0", "--prometheus-port=0")
	cmd.Env = append(append(os.Environ(), e.Env()...), "GORACE=atexit_sleep_ms=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	client := plugin.NewClient(plugin.ClientConfig{Socket: socket, ConnectWithin: time.Minute})
	t.Cleanup(func() {
		client.Close()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("keymount-azure: %v\n%s", err, stderr.String())
		}
		os.RemoveAll(dir)
	})
	if _, err := client.Version(t.Context()); err != nil { // it serves, so it will stop cleanly too
		t.Fatal(err)
	}
	return client
}
