//go:build integration && linux

package layout

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func find(t *testing.T, path string) Dir {
	t.Helper()
	dir, err := Find(path)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTwoNamesOfOneFolderAreOneCluster(t *testing.T) {
	real := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	one, two, other := find(t, filepath.Join(real, "a", "b")), find(t, filepath.Join(link, "a", "..", "a", "b")), find(t, filepath.Join(real, "a", "c"))
	if one != two || one.Cgroup() != two.Cgroup() {
		t.Errorf("%s and %s are two", one, two)
	}
	if one.Cgroup() == other.Cgroup() {
		t.Errorf("%s and %s share control groups", one, other)
	}
}

func TestClaim(t *testing.T) {
	fresh := find(t, filepath.Join(t.TempDir(), "a", "b"))
	for range 2 { // a folder that was a cluster's may be again
		if err := fresh.Claim(); err != nil {
			t.Fatal(err)
		}
	}
	used := find(t, t.TempDir())
	if err := os.WriteFile(used.Path("thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := used.Claim(); err == nil || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("a folder with other files: %v", err)
	}
	for _, dir := range []Dir{"/run/x", "/etc", "/proc/1"} {
		if err := dir.Claim(); err == nil || !strings.Contains(err.Error(), "--dir") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// What is removed at the end is below the folder, is not the folder, and is not the logs.
func TestDataIsBelowTheFolder(t *testing.T) {
	dir := Dir("/srv/cluster")
	for _, path := range dir.Data() {
		if !strings.HasPrefix(path, "/srv/cluster/") || strings.HasPrefix(dir.Logs(), path) || strings.HasPrefix(path, dir.Logs()) {
			t.Errorf("%s would be removed", path)
		}
	}
	for _, path := range []string{dir.Kubeconfig(), dir.KubeconfigInside(), dir.CACert(), dir.Machine("n1", "kubelet"), dir.Hosts(), dir.Plan()} {
		covered := false
		for _, data := range dir.Data() {
			covered = covered || path == data || strings.HasPrefix(path, data+"/")
		}
		if !covered {
			t.Errorf("%s would stay", path)
		}
	}
}
