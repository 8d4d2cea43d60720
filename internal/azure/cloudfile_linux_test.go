package azure_test

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"keymount/internal/azure"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
)

// Opening a named pipe would wait for its other end, for ever and in spite of every deadline.
func TestCloudFileThatIsNoFile(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(folder, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startWith(t, emulatortest.Start(t, emulatortest.DefaultSeed(vaultName)), func(cfg *azure.Config) { cfg.CloudFolder = folder })
	req := r.request(array(entry("secret", "one")))
	req.Parameters["cloudName"], req.Parameters["cloudEnvFileName"] = "AzureStackCloud", "pipe"
	ended := make(chan error, 1)
	go func() {
		_, err := r.inner.Fetch(t.Context(), req)
		ended <- err
	}()
	select {
	case err := <-ended:
		if provider.KindOf(err) != provider.Invalid || err == nil {
			t.Errorf("kind %v: %v", provider.KindOf(err), err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it waits for the other end of a pipe")
	}
}
