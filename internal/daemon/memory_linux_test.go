package daemon

import (
	"os"
	"path/filepath"
	"strconv"
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

// Volumes that are made at the same moment, or that grow, may not use together what each of them alone could have.
func TestRootBudgetOfWhatIsBeingWritten(t *testing.T) {
	volumetest.NeedRoot(t)
	dir := t.TempDir()
	var known []string
	cgroup := fstest.MapFS{"memory.max": {Data: []byte("8388608\n")}} // 4 MiB for volumes, 6 for those that grow
	b := newBudget(volume.Tmpfs{}, cgroup, func() []string { return known })
	file := func(size int) []provider.File {
		return []provider.File{{Path: "f", Mode: 0o600, Contents: make(provider.Contents, size)}}
	}
	mount := func(name string) string {
		target := filepath.Join(dir, name)
		if err := b.Mount(target); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Unmount(target) })
		return target
	}
	first, second := mount("a"), mount("b")
	release, err := b.Reserve(first, file(3<<20))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Reserve(second, file(2<<20)); provider.KindOf(err) != provider.Unavailable || !strings.Contains(err.Error(), "needs 2048 KiB") {
		t.Errorf("both at once: %v", err)
	}
	if _, err := volume.Write(first, file(3<<20), volume.Options{}); err != nil {
		t.Fatal(err)
	}
	known = append(known, first)
	release()
	release() // again, which is fine
	many := make([]provider.File, 300)
	for i := range many { // each takes a page
		many[i] = provider.File{Path: strconv.Itoa(i), Mode: 0o600, Contents: provider.Contents("x")}
	}
	if _, err := b.Reserve(second, many); err == nil {
		t.Error("300 pages are more than 1 MiB")
	}
	release, err = b.Reserve(second, many[:200])
	if err != nil {
		t.Errorf("there is room for 200 pages: %v", err)
	}
	release()

	// What is there already has a right to stay and to be refreshed, and to grow where a new one is refused.
	if _, err := b.Reserve(first, file(7<<20)); err == nil {
		t.Error("7 MiB are more than three quarters of 8")
	}
	release, err = b.Reserve(first, file(5<<20))
	if err != nil {
		t.Errorf("growing: %v", err)
	}
	if _, err := volume.Write(first, file(5<<20), volume.Options{}); err != nil {
		t.Fatal(err)
	}
	release()
	if err := b.Mount(filepath.Join(dir, "c")); err == nil {
		t.Error("a new volume has no room")
	}
	if _, err := b.Reserve(first, file(5<<20)); err != nil {
		t.Errorf("refreshing what is there: %v", err)
	}
	if b.reserved != 0 {
		t.Errorf("%d bytes are still reserved", b.reserved)
	}
}
