//go:build linux

package volume_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/volume"
)

func TestFolderLife(t *testing.T) {
	var f volume.Folder
	root := filepath.Join(t.TempDir(), "below", "volume")
	assertState(t, f, root, volume.Absent)
	for range 2 {
		must(t, f.Mount(root))
		assertState(t, f, root, volume.NotMounted)
	}
	info, err := os.Stat(root)
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode is %v", info.Mode())
	}
	mustWrite(t, root, base())
	must(t, f.Mount(root)) // a second run of the command
	status := assertState(t, f, root, volume.Mounted)
	if g, _ := volume.Read(root); status.Generation != g.Name || status.Device == 0 {
		t.Errorf("status is %+v, generation %s", status, g.Name)
	}
	assertHolds(t, root, base())
	for range 2 {
		must(t, f.Unmount(root))
		assertState(t, f, root, volume.Absent)
	}
}

type inspector interface {
	Inspect(string) (volume.Status, error)
}

func assertState(t testing.TB, v inspector, root string, want volume.State) volume.Status {
	t.Helper()
	status, err := v.Inspect(root)
	must(t, err)
	if status.State != want {
		t.Fatalf("state is %v, want %v", status.State, want)
	}
	return status
}

func TestFolderTakesOverAnEmptyOneAndMakesItPrivate(t *testing.T) {
	root := t.TempDir()
	must(t, os.Chmod(root, 0o777))
	must(t, volume.Folder{}.Mount(root))
	info, _ := os.Stat(root)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode is %v", info.Mode())
	}
}

func TestFolderRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		make func(dir string) error
		says string
	}{
		"a foreign file":         {func(d string) error { os.Mkdir(d, 0o755); return os.WriteFile(d+"/report.txt", nil, 0o600) }, `"report.txt"`},
		"a foreign folder":       {func(d string) error { return os.MkdirAll(d+"/src", 0o755) }, `"src"`},
		"a link of its own kind": {func(d string) error { os.Mkdir(d, 0o755); return os.Symlink("..data/b", d+"/a") }, `"a"`},
		"many": {func(d string) error {
			for _, n := range []string{"1", "2", "3", "4", "5", "6", "7"} {
				os.MkdirAll(d+"/"+n, 0o755)
			}
			return nil
		}, "and more"},
		"a file":        {func(d string) error { return os.WriteFile(d, nil, 0o600) }, "is a regular file"},
		"a link":        {func(d string) error { return os.Symlink(".", d) }, "is a symbolic link"},
		"dangling link": {func(d string) error { return os.Symlink("nowhere", d) }, "is a symbolic link"},
		"a pipe":        {func(d string) error { return syscall.Mkfifo(d, 0o600) }, "is a named pipe"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			must(t, tc.make(dir))
			before := stamps(t, filepath.Dir(dir))
			assertKind(t, volume.Folder{}.Mount(dir), provider.Invalid, tc.says, "d")
			if after := stamps(t, filepath.Dir(dir)); len(after) != len(before) || after[len(after)-1] != before[len(before)-1] {
				t.Error("a refused folder was touched")
			}
		})
	}
}

func TestFolderUnmountKeepsWhatIsNotItsOwn(t *testing.T) {
	root := folderVolume(t)
	mustWrite(t, root, base())
	must(t, os.WriteFile(root+"/notes", []byte("mine"), 0o600))
	assertKind(t, volume.Folder{}.Unmount(root), provider.Invalid, `"notes"`)
	if entries, _ := os.ReadDir(root); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
	must(t, os.Remove(root+"/notes"))
	must(t, volume.Folder{}.Unmount(root))
}

func TestFolderUnmountOfALinkLeavesItsTarget(t *testing.T) {
	root := folderVolume(t)
	mustWrite(t, root, base())
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(root, link))
	if err := (volume.Folder{}).Unmount(link); err == nil {
		t.Error("no error")
	}
	if _, err := (volume.Folder{}).Inspect(link); err == nil {
		t.Error("a link was inspected as a folder")
	}
	assertHolds(t, root, base())
}

// Two commands on one folder would remove each other's half-written generation.
func TestSecondWriterOfAPrivateFolderIsTurnedAway(t *testing.T) {
	root := folderVolume(t)
	other, err := os.Open(root)
	must(t, err)
	must(t, syscall.Flock(int(other.Fd()), syscall.LOCK_EX))
	_, err = volume.Write(root, base(), volume.Options{})
	assertKind(t, err, provider.Unavailable, "another process")
	must(t, os.Chmod(root, 0o755)) // where others could hold the lock, it does not count
	mustWrite(t, root, base())
	other.Close()
	must(t, os.Chmod(root, 0o700))
	mustWrite(t, root, nil)
}

func TestBootID(t *testing.T) {
	one, err := volume.BootID()
	must(t, err)
	if two, _ := volume.BootID(); one != two || len(one) != 36 {
		t.Errorf("boot ids %q and %q", one, two)
	}
}
