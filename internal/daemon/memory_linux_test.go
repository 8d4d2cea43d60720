package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"keymount/internal/provider"
	"keymount/internal/volume"
	"keymount/internal/volume/volumetest"
)

func TestMain(m *testing.M) { os.Exit(volumetest.Main(m)) }

// Volumes may use half of the container's memory; after that none is added, and those there stay.
func TestRootBudget(t *testing.T) {
	volumetest.NeedRoot(t)
	dir := t.TempDir()
	targets := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	cgroup := fstest.MapFS{"memory.max": {Data: []byte("4194304\n")}}
	b := newBudget(volume.Tmpfs{}, cgroup, func() []string { return targets })
	for _, target := range targets {
		if err := b.Mount(target); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Unmount(target) })
		files := []provider.File{{Path: "f", Mode: 0o600, Contents: make(provider.Contents, 1<<20)}}
		if _, err := volume.Write(target, files, volume.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	err := b.Mount(filepath.Join(dir, "c"))
	if provider.KindOf(err) != provider.Unavailable || err == nil || !strings.Contains(err.Error(), "limit of 4 MiB") ||
		!strings.Contains(err.Error(), "linux.driver.resources.limits.memory") {
		t.Errorf("got %v", err)
	}
	if err := b.Unmount(targets[1]); err != nil {
		t.Fatal(err)
	}
	if err := b.Mount(targets[1]); err != nil {
		t.Errorf("there is room again: %v", err)
	}
}
