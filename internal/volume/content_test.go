//go:build linux

package volume_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/volume"
)

// file is one file of a content. Without a mode it has 0644.
func file(path, contents string, mode ...fs.FileMode) provider.File {
	f := provider.File{Path: path, Mode: 0o644, Contents: provider.Contents(contents), Object: "secret/" + path}
	if len(mode) > 0 {
		f.Mode = mode[0]
	}
	return f
}

func mustWrite(t testing.TB, root string, files []provider.File) volume.Change {
	t.Helper()
	change, err := volume.Write(root, files, volume.Options{})
	if err != nil {
		t.Fatalf("writing: %v", err)
	}
	if change.Leftover != nil {
		t.Errorf("left over: %v", change.Leftover)
	}
	return change
}

// wrong returns how the volume differs from files as an application sees it: through ..data, through the top-level names, and
// with the exact modes. "" means not at all. It shares no code with the package.
func wrong(root string, files []provider.File) string {
	data, err := filepath.EvalSymlinks(filepath.Join(root, "..data"))
	if err != nil {
		return err.Error()
	}
	var have []string
	err = filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			if info.Mode().Perm() != 0o755 {
				return fmt.Errorf("folder %s has mode %o", path, info.Mode().Perm())
			}
			return nil
		}
		rel, err := filepath.Rel(data, path)
		have = append(have, rel)
		return err
	})
	if err != nil {
		return err.Error()
	}
	var want []string
	for _, f := range files {
		want = append(want, f.Path)
		for _, way := range []string{filepath.Join(data, f.Path), filepath.Join(root, f.Path)} {
			got, err := os.ReadFile(way)
			if err != nil {
				return err.Error()
			}
			if !bytes.Equal(got, f.Contents) {
				return fmt.Sprintf("%s holds %q, want %q", way, got, []byte(f.Contents))
			}
			info, err := os.Stat(way)
			if err != nil {
				return err.Error()
			}
			if info.Mode() != f.Mode {
				return fmt.Sprintf("%s has mode %v, want %v", way, info.Mode(), f.Mode)
			}
		}
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(have, want) {
		return fmt.Sprintf("..data holds %q, want %q", have, want)
	}
	return ""
}

// leftovers returns what is in the folder beyond one generation, ..data, one link for each top-level name, and others.
func leftovers(root string, files []provider.File, others ...string) []string {
	entries, err := os.ReadDir(root)
	if err != nil {
		return []string{err.Error()}
	}
	current, _ := os.Readlink(filepath.Join(root, "..data"))
	expected := append([]string{"..data", current}, others...)
	for _, f := range files {
		first, _, _ := strings.Cut(f.Path, "/")
		expected = append(expected, first)
		if target, err := os.Readlink(filepath.Join(root, first)); target != "..data/"+first {
			return []string{fmt.Sprintf("%s -> %q, %v", first, target, err)}
		}
	}
	var extra []string
	for _, e := range entries {
		if !slices.Contains(expected, e.Name()) {
			extra = append(extra, e.Name())
		}
	}
	return extra
}

func assertHolds(t testing.TB, root string, files []provider.File, others ...string) {
	t.Helper()
	if why := wrong(root, files); why != "" {
		t.Errorf("volume is not as written: %s", why)
	}
	if extra := leftovers(root, files, others...); len(extra) > 0 {
		t.Errorf("left over: %q", extra)
	}
	g, err := volume.Read(root)
	if err != nil {
		t.Errorf("reading: %v", err)
		return
	}
	if len(g.Files) != len(files) {
		t.Errorf("Read gives %d files, want %d", len(g.Files), len(files))
	}
	for _, f := range files {
		i := slices.IndexFunc(g.Files, func(got provider.File) bool { return got.Path == f.Path })
		if i < 0 || g.Files[i].Mode != f.Mode || !bytes.Equal(g.Files[i].Contents, f.Contents) {
			t.Errorf("Read gives another %s", f.Path)
		}
	}
}

// stamps returns what every change to a folder alters: inode, status change time, mode, owner and name of every entry.
func stamps(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		out = append(out, fmt.Sprint(path, st.Ino, st.Ctim, st.Mtim, st.Mode, st.Uid, st.Gid))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// folderVolume returns a new volume in a plain folder.
func folderVolume(t testing.TB) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "volume")
	if err := (volume.Folder{}).Mount(root); err != nil {
		t.Fatal(err)
	}
	return root
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// assertKind fails unless err is of the kind and names everything in mention.
func assertKind(t testing.TB, err error, kind provider.Kind, mention ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	var one *provider.Error
	if !errors.As(err, &one) || provider.KindOf(err) != kind {
		t.Errorf("error is of the kind %v, want %v: %v", provider.KindOf(err), kind, err)
	}
	for _, text := range mention {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error does not mention %q: %v", text, err)
		}
	}
}
