//go:build integration && linux

package sanity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"keymount/internal/volume/volumetest"
	"keymount/test/integration/driver"
)

// wholeVolume checks that a target is one tmpfs mount, that ..data resolves in it, and that the files are there. It returns
// the name of the generation and the id of the mount, which the kernel may give to a later mount again.
func wholeVolume(target string, files map[string]string) (identity string, err error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	var found []string // of the target
	for line := range strings.Lines(string(table)) {
		// id, parent, device, root, point, options, any number of tags, "-", type, ...
		fields := strings.Fields(line)
		if fields[4] != target {
			continue
		}
		if kind := fields[slices.Index(fields, "-")+1]; kind != "tmpfs" {
			return "", fmt.Errorf("%s is a mount of type %s", target, kind)
		}
		found = append(found, fields[0])
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%s has %d mounts", target, len(found))
	}
	data := filepath.Join(target, "..data")
	if _, err := os.Readlink(data); err != nil {
		return "", err
	}
	generation, err := filepath.EvalSymlinks(data)
	if err != nil {
		return "", err
	}
	if filepath.Dir(generation) != target {
		return "", fmt.Errorf("%s leads to %s", data, generation)
	}
	for name, content := range files {
		for _, folder := range []string{target, data} {
			if got, err := os.ReadFile(filepath.Join(folder, name)); err != nil || string(got) != content {
				return "", fmt.Errorf("%s of %s holds %q (%v)", name, folder, got, err)
			}
		}
	}
	return filepath.Base(generation) + " of mount " + found[0], nil
}

// nothing checks that nothing is mounted below root, and that the folder of the targets is empty.
func nothing(root, folder string) error {
	if mounts := driver.Mounts(root); len(mounts) > 0 {
		return fmt.Errorf("mounts are left: %q", mounts)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("files are left in %s: %v", folder, entries)
	}
	return nil
}

// The checks see each thing that they are for: a whole volume with one change.
func TestRootChecks(t *testing.T) {
	volumetest.NeedRoot(t)
	for _, tc := range []struct {
		name   string
		change func(target string) error
		want   string // "" if it is whole
	}{
		{"whole", func(string) error { return nil }, ""},
		{"not mounted", func(target string) error { return syscall.Unmount(target, 0) }, "has 0 mounts"},
		{"mounted twice", mountTmpfs, "has 2 mounts"},
		{"another file system", func(target string) error {
			return errors.Join(syscall.Unmount(target, 0), syscall.Mount("proc", target, "proc", 0, ""))
		}, "type proc"},
		{"no ..data", func(target string) error { return os.Remove(filepath.Join(target, "..data")) }, "no such file"},
		{"..data leads nowhere", func(target string) error { return os.RemoveAll(filepath.Join(target, "..1")) }, "no such file"},
		{"..data leads away", func(target string) error {
			link := filepath.Join(target, "..data")
			return errors.Join(os.Remove(link), os.Symlink("../away", link), os.Mkdir(filepath.Join(filepath.Dir(target), "away"), 0o755))
		}, "leads to"},
		{"other content", func(target string) error { return os.WriteFile(filepath.Join(target, "..1", "a"), []byte("2"), 0o644) }, `holds "2"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			folder := t.TempDir()
			target := filepath.Join(folder, "target")
			if err := nothing(folder, folder); err != nil {
				t.Errorf("an empty folder: %v", err)
			}
			if err := os.Mkdir(target, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := nothing(folder, folder); err == nil || !strings.Contains(err.Error(), "files are left") {
				t.Errorf("a folder that is left: %v", err)
			}
			t.Cleanup(func() {
				for _, m := range driver.Mounts(folder) {
					syscall.Unmount(m, 0)
				}
			})
			if err := makeVolume(target); err != nil {
				t.Fatal(err)
			}
			if err := nothing(folder, folder); err == nil || !strings.Contains(err.Error(), "mounts are left") {
				t.Errorf("a mount that is left: %v", err)
			}
			if err := tc.change(target); err != nil {
				t.Fatal(err)
			}
			_, err := wholeVolume(target, map[string]string{"a": "1"})
			if got := fmt.Sprint(err); (err == nil) != (tc.want == "") || tc.want != "" && !strings.Contains(got, tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func mountTmpfs(target string) error { return syscall.Mount("tmpfs", target, "tmpfs", 0, "size=64k") }

func makeVolume(target string) error {
	if err := mountTmpfs(target); err != nil {
		return err
	}
	return errors.Join(
		os.Mkdir(filepath.Join(target, "..1"), 0o755),
		os.WriteFile(filepath.Join(target, "..1", "a"), []byte("1"), 0o644),
		os.Symlink("..1", filepath.Join(target, "..data")),
		os.Symlink("..data/a", filepath.Join(target, "a")))
}
