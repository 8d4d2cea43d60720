package registry_test

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"keymount/internal/volume/registry"
)

// A process that is being started holds copies of all handles until its program runs. The lock must not live on in them.
func TestReleaseCountsWhereverTheHandleWasCopied(t *testing.T) {
	folder, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	lock, err := registry.AcquireLock(t.Context(), folder)
	must(t, err)
	copies := 0
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range entries {
		if name, _ := os.Readlink("/proc/self/fd/" + e.Name()); filepath.Dir(name) == folder {
			fd, err := strconv.Atoi(e.Name())
			must(t, err)
			dup, err := syscall.Dup(fd)
			must(t, err)
			defer syscall.Close(dup)
			copies++
		}
	}
	if copies == 0 {
		t.Fatalf("%s", "the lock has no handle")
	}
	must(t, lock.Release())
	again, err := registry.AcquireLock(t.Context(), folder)
	must(t, err)
	must(t, again.Release())
}
