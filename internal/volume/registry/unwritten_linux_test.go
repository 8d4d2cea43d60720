package registry_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"keymount/internal/volume/registry"
)

// A folder that cannot be written is the same news each time, says what to do, and is no reason to forget what is known.
func TestAFolderThatCannotBeWritten(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "registry")
	r, _ := open(t, folder)
	mustSave(t, r, record())
	must(t, os.RemoveAll(folder))
	said := map[string]bool{}
	for range 2 {
		rec := record()
		rec.Device++
		err := r.Save(rec)
		if !errors.Is(err, registry.ErrUnwritten) || !errors.Is(err, syscall.ENOENT) || !strings.Contains(err.Error(), "--state-dir") ||
			!strings.Contains(err.Error(), folder) {
			t.Fatalf("got %v", err)
		}
		said[err.Error()] = true
	}
	if len(said) != 1 {
		t.Errorf("it is told in %d ways: %v", len(said), said)
	}
	if rec, ok := r.Get("csi-1234"); !ok || rec.Device != record().Device+1 {
		t.Errorf("this process goes by %+v, %v", rec, ok)
	}
}
