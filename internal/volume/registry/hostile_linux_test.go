package registry_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Records are for this user only, whatever the umask says, and something that stands in for one cannot hold up the start of
// the daemon.
func TestRecordsArePrivateAndNeverWaitedFor(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	folder := filepath.Join(t.TempDir(), "registry")
	r, _ := open(t, folder)
	mustSave(t, r, record())
	files, err := filepath.Glob(folder + "/*.json")
	must(t, err)
	for path, want := range map[string]os.FileMode{folder: os.ModeDir | 0o700, files[0]: 0o600} {
		info, err := os.Stat(path)
		must(t, err)
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
	must(t, os.Remove(files[0]))
	must(t, syscall.Mkfifo(files[0], 0o600))
	opened := make(chan []error, 1)
	go func() {
		_, warnings := open(t, folder)
		opened <- warnings
	}()
	select {
	case warnings := <-opened:
		if len(warnings) != 1 {
			t.Errorf("warnings: %v", warnings)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it waits for the other end of a pipe")
	}
	mustSave(t, r, record())
	if again, warnings := open(t, folder); len(again.All()) != 1 || len(warnings) != 0 {
		t.Errorf("after the next save: %v, %v", again.All(), warnings)
	}
}
