//go:build linux

package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/volume"
)

func base() []provider.File {
	return []provider.File{file("a", "1"), file("b", "2", 0o400), file("n/one", "3"), file("n/deep/two", "4", 0o755)}
}

func TestWriteChanges(t *testing.T) {
	t.Attr("conformance", "12.4/replace-all")
	t.Attr("conformance", "10.1/12-all-objects-removed")
	t.Attr("conformance", "10.1/13-mode-only-change")
	for name, tc := range map[string]struct {
		change func(files []provider.File) []provider.File
		want   volume.Change
	}{
		"nothing":             {func(f []provider.File) []provider.File { return f }, volume.Change{}},
		"order":               {func(f []provider.File) []provider.File { slices.Reverse(f); return f }, volume.Change{}},
		"contents":            {func(f []provider.File) []provider.File { f[0].Contents = provider.Contents("9"); return f }, volume.Change{Updated: []string{"a"}}},
		"longer contents":     {func(f []provider.File) []provider.File { f[0].Contents = provider.Contents("11"); return f }, volume.Change{Updated: []string{"a"}}},
		"emptied":             {func(f []provider.File) []provider.File { f[0].Contents = nil; return f }, volume.Change{Updated: []string{"a"}}},
		"mode alone":          {func(f []provider.File) []provider.File { f[1].Mode = 0o440; return f }, volume.Change{Updated: []string{"b"}}},
		"added":               {func(f []provider.File) []provider.File { return append(f, file("c", "5")) }, volume.Change{Added: []string{"c"}}},
		"added below":         {func(f []provider.File) []provider.File { return append(f, file("n/z", "5")) }, volume.Change{Added: []string{"n/z"}}},
		"removed":             {func(f []provider.File) []provider.File { return f[1:] }, volume.Change{Removed: []string{"a"}}},
		"removed with folder": {func(f []provider.File) []provider.File { return f[:2] }, volume.Change{Removed: []string{"n/deep/two", "n/one"}}},
		"all removed":         {func(f []provider.File) []provider.File { return nil }, volume.Change{Removed: []string{"a", "b", "n/deep/two", "n/one"}}},
		"file becomes folder": {func(f []provider.File) []provider.File { f[0].Path = "a/x"; return f },
			volume.Change{Added: []string{"a/x"}, Removed: []string{"a"}}},
		"folder becomes file": {func(f []provider.File) []provider.File { f[2].Path = "n"; return f[:3] },
			volume.Change{Added: []string{"n"}, Removed: []string{"n/deep/two", "n/one"}}},
	} {
		t.Run(name, func(t *testing.T) {
			root := folderVolume(t)
			if got := mustWrite(t, root, base()); !slices.Equal(got.Added, []string{"a", "b", "n/deep/two", "n/one"}) || len(got.Updated)+len(got.Removed) != 0 {
				t.Errorf("first write reports %+v", got)
			}
			before := stamps(t, root)
			files := tc.change(base())
			got := mustWrite(t, root, files)
			if !slices.Equal(got.Added, tc.want.Added) || !slices.Equal(got.Updated, tc.want.Updated) || !slices.Equal(got.Removed, tc.want.Removed) {
				t.Errorf("change is %+v, want %+v", got, tc.want)
			}
			if touched := !slices.Equal(before, stamps(t, root)); touched == tc.want.Empty() {
				t.Errorf("folder touched: %v", touched)
			}
			assertHolds(t, root, files)
			before = stamps(t, root)
			if again := mustWrite(t, root, files); !again.Empty() || !slices.Equal(before, stamps(t, root)) {
				t.Errorf("the same write again changes %+v", again)
			}
		})
	}
}

func TestEmptyContentIsAGeneration(t *testing.T) {
	root := folderVolume(t)
	mustWrite(t, root, nil)
	assertHolds(t, root, nil)
	before := stamps(t, root)
	mustWrite(t, root, nil)
	if !slices.Equal(before, stamps(t, root)) {
		t.Error("writing nothing twice touched the folder")
	}
}

// Modes are those asked for, whatever the umask. (The umask belongs to the process, so that this test must not run in parallel.)
func TestUmaskHasNoEffect(t *testing.T) {
	t.Attr("conformance", "12.5/modes")
	root := folderVolume(t)
	old := syscall.Umask(0o777)
	defer syscall.Umask(old)
	files := []provider.File{file("a", "1", 0o777), file("n/b", "2", 0o640), file("n/m/c", "3", 0o444)}
	mustWrite(t, root, files)
	assertHolds(t, root, files)
}

func TestModeZero(t *testing.T) {
	t.Attr("conformance", "12.4/mode-0")
	root := folderVolume(t)
	files := []provider.File{file("a", "1", 0)}
	mustWrite(t, root, files)
	info, err := os.Stat(root + "/a")
	must(t, err)
	if info.Mode() != 0 {
		t.Errorf("mode is %v", info.Mode())
	}
}

// What is compared is what is on disk, not what was written last.
func TestDamageOnDiskIsRepaired(t *testing.T) {
	for name, damage := range map[string]func(data, root string) error{
		"bytes":            func(data, _ string) error { return os.WriteFile(data+"/a", []byte("X"), 0o644) },
		"mode":             func(data, _ string) error { return os.Chmod(data+"/a", 0o666) },
		"setuid":           func(data, _ string) error { return os.Chmod(data+"/a", 0o644|os.ModeSetuid) },
		"mode of a folder": func(data, _ string) error { return os.Chmod(data+"/n", 0o777) },
		"mode of the data": func(data, _ string) error { return os.Chmod(data, 0o700) },
		"data unlistable":  func(data, _ string) error { return os.Chmod(data, 0) },
		"..data is too long": func(_, root string) error {
			os.Remove(root + "/..data")
			return os.Symlink(".."+strings.Repeat("x", 300), root+"/..data")
		},
		"file missing":       func(data, _ string) error { return os.Remove(data + "/a") },
		"foreign file":       func(data, _ string) error { return os.WriteFile(data+"/x", nil, 0o644) },
		"foreign folder":     func(data, _ string) error { return os.Mkdir(data+"/x", 0o755) },
		"file is a link":     func(data, _ string) error { os.Remove(data + "/a"); return os.Symlink("b", data+"/a") },
		"file is a folder":   func(data, _ string) error { os.Remove(data + "/a"); return os.Mkdir(data+"/a", 0o755) },
		"folder is a link":   func(data, _ string) error { os.Rename(data+"/n", data+"/m"); return os.Symlink("m", data+"/n") },
		"generation gone":    func(data, _ string) error { return os.RemoveAll(data) },
		"..data gone":        func(_, root string) error { return os.Remove(root + "/..data") },
		"top link gone":      func(_, root string) error { return os.Remove(root + "/a") },
		"top link elsewhere": func(_, root string) error { os.Remove(root + "/a"); return os.Symlink("..data/b", root+"/a") },
		"top link absolute":  func(_, root string) error { os.Remove(root + "/a"); return os.Symlink("/etc/passwd", root+"/a") },
		"top is a file": func(_, root string) error {
			os.Remove(root + "/a")
			return os.WriteFile(root+"/a", []byte("old"), 0o600)
		},
		"top is a folder": func(_, root string) error {
			os.Remove(root + "/n")
			return os.MkdirAll(root+"/n/deep", 0o700)
		},
		"..data is a file": func(_, root string) error {
			os.Remove(root + "/..data")
			return os.WriteFile(root+"/..data", nil, 0o600)
		},
		"..data is a folder": func(_, root string) error { os.Remove(root + "/..data"); return os.MkdirAll(root+"/..data/x", 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			root := folderVolume(t)
			mustWrite(t, root, base())
			data, err := filepath.EvalSymlinks(root + "/..data")
			must(t, err)
			must(t, damage(data, root))
			mustWrite(t, root, base())
			assertHolds(t, root, base())
		})
	}
}

// What a killed write or an older driver left is removed by the next write, also by one that changes nothing else.
func TestLeftoversAreRemoved(t *testing.T) {
	t.Attr("conformance", "10.1/10-leftover-data-tmp")
	deep := "/..2024_01_01_00_00_00.1" + strings.Repeat("/d", 300)
	for name, leave := range map[string]func(root string) error{
		"..data_tmp link":   func(root string) error { return os.Symlink("..2024_01_01_00_00_00.1", root+"/..data_tmp") },
		"..data_tmp folder": func(root string) error { return os.MkdirAll(root+"/..data_tmp/x", 0o700) },
		"..data_tmp file":   func(root string) error { return os.WriteFile(root+"/..data_tmp", nil, 0o400) },
		"half a generation": func(root string) error { return os.MkdirAll(root+"/..2024_01_01_00_00_00.123/n", 0o755) },
		"unlisted folder": func(root string) error {
			os.MkdirAll(root+"/..2024_01_01_00_00_00.123/n", 0o755)
			return os.Chmod(root+"/..2024_01_01_00_00_00.123/n", 0)
		},
		"generation is file": func(root string) error { return os.WriteFile(root+"/..2024_01_01_00_00_00.9", nil, 0o400) },
		"dangling link":      func(root string) error { return os.Symlink("..data/gone", root+"/gone") },
		"deeper than a path": func(root string) error { return os.MkdirAll(root+deep, 0o755) },
		"many": func(root string) error {
			for i := range 600 {
				os.Symlink("x", root+"/..2024_01_01_00_00_00.x"+strings.Repeat("y", i%100)+string(rune('a'+i/100)))
			}
			return nil
		},
	} {
		for _, files := range map[string][]provider.File{"unchanged": base(), "changed": base()[1:]} {
			t.Run(name, func(t *testing.T) {
				root := folderVolume(t)
				mustWrite(t, root, base())
				must(t, leave(root))
				mustWrite(t, root, files)
				assertHolds(t, root, files)
			})
		}
		t.Run(name+" before the first write", func(t *testing.T) {
			root := folderVolume(t)
			must(t, leave(root))
			mustWrite(t, root, base())
			assertHolds(t, root, base())
		})
	}
}

// Providers may have written files themselves before, or still do beside: a name that is now ours is replaced, others stay.
func TestFilesThatAProviderWroteItself(t *testing.T) {
	t.Attr("conformance", "12.5/adopted-self-written")
	root := folderVolume(t)
	must(t, os.WriteFile(root+"/a", []byte("legacy"), 0o644))
	must(t, os.MkdirAll(root+"/n/old", 0o755))
	must(t, os.WriteFile(root+"/mine", []byte("stays"), 0o644))
	must(t, os.Symlink("mine", root+"/link"))
	must(t, os.Mkdir(root+"/..other", 0o755))
	mustWrite(t, root, base())
	assertHolds(t, root, base(), "mine", "link", "..other")
	mustWrite(t, root, nil)
	assertHolds(t, root, nil, "mine", "link", "..other")
	if got, err := os.ReadFile(root + "/link"); string(got) != "stays" {
		t.Errorf("a foreign file holds %q, %v", got, err)
	}
}

func TestGroupBelongsToTheContent(t *testing.T) {
	root := folderVolume(t)
	mine := os.Getgid() // any user may give files to a group of their own
	write := func() volume.Change {
		change, err := volume.Write(root, base(), volume.Options{Group: &mine})
		must(t, err)
		return change
	}
	write()
	assertHolds(t, root, base())
	if again := write(); !again.Empty() {
		t.Errorf("the same group again changes %+v", again)
	}
	bad := -1
	_, err := volume.Write(root, base(), volume.Options{Group: &bad})
	assertKind(t, err, provider.Invalid, "group -1")
}

func TestReadWithoutAGeneration(t *testing.T) {
	root := folderVolume(t)
	for name, path := range map[string]string{"empty": root, "absent": root + "/absent"} {
		if g, err := volume.Read(path); !errors.Is(err, volume.ErrNoGeneration) || g != nil {
			t.Errorf("%s: %v, %v", name, g, err)
		}
	}
	must(t, os.Symlink("..2024_01_01_00_00_00.1", root+"/..data"))
	if _, err := volume.Read(root); !errors.Is(err, volume.ErrNoGeneration) {
		t.Errorf("dangling: %v", err)
	}
	must(t, os.WriteFile(root+"/..2024_01_01_00_00_00.1", nil, 0o644))
	if _, err := volume.Read(root); !errors.Is(err, volume.ErrNoGeneration) {
		t.Errorf("not a folder: %v", err)
	}
}

func TestWriteNeedsAFolder(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/file", nil, 0o644))
	must(t, os.Symlink(".", dir+"/link"))
	for _, name := range []string{"absent", "file", "link"} {
		if _, err := volume.Write(dir+"/"+name, base(), volume.Options{}); err == nil {
			t.Errorf("wrote to %s", name)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left %v", entries)
	}
}
