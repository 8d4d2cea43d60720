package volume_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/volume"
)

// FuzzPath: what Check accepts is written below the root and read back identically; what it refuses leaves nothing.
func FuzzPath(f *testing.F) {
	for _, seed := range [][3]string{
		{"a", "b", "c"}, {"a", "a", "b"}, {"a", "a/b", "a/c"}, {"a/b/c", "a/b", "x"}, {"..data", "..data/x", ".."}, {".", "/", ""},
		{"a/../../b", "./a", "a//b"}, {"a\x00b", "a\\b", "a\nb"}, {"\xff", "...", ".a"}, {strings.Repeat("x", 256), strings.Repeat("d/", 64) + "f", "a/"},
		{"..2026_01_01_00_00_00.1", "C:\\x", "NUL"}, {"a-b", "a/b", "a.b"},
	} {
		f.Add(seed[0], seed[1], seed[2], uint32(0o640), "contents")
	}
	f.Fuzz(func(t *testing.T, a, b, c string, mode uint32, contents string) {
		files := []provider.File{
			{Path: a, Mode: fs.FileMode(mode), Contents: provider.Contents(contents)},
			{Path: b, Mode: 0o400, Contents: nil},
			{Path: c, Mode: 0o755, Contents: provider.Contents(a)},
		}
		parent := t.TempDir()
		root := filepath.Join(parent, "root")
		must(t, volume.Folder{}.Mount(root))
		if err := volume.Check(files); err != nil {
			if provider.KindOf(err) != provider.Invalid || strings.ContainsAny(err.Error(), "\x00") {
				t.Errorf("error %q", err)
			}
			if _, err := volume.Write(root, files, volume.Options{}); err == nil {
				t.Error("Write accepts what Check refuses")
			}
			assertOnly(t, root)
			assertOnly(t, parent, "root")
			return
		}
		files[0].Mode |= 0o400 // or a user that is not root cannot read it back
		for range 2 {
			mustWrite(t, root, files)
			assertOnly(t, parent, "root")
			g, err := volume.Read(root)
			must(t, err)
			if len(g.Files) != len(files) {
				t.Fatalf("%d files, want %d", len(g.Files), len(files))
			}
			for _, want := range files {
				i := slices.IndexFunc(g.Files, func(f provider.File) bool { return f.Path == want.Path })
				if i < 0 || g.Files[i].Mode != want.Mode || string(g.Files[i].Contents) != string(want.Contents) {
					t.Errorf("%q came back otherwise", want.Path)
				}
				if got, err := os.ReadFile(root + "/" + want.Path); err != nil || string(got) != string(want.Contents) {
					t.Errorf("%q is not at its top-level name: %v", want.Path, err)
				}
			}
			slices.Reverse(files)
		}
		must(t, volume.Folder{}.Unmount(root))
		assertOnly(t, parent)
	})
}

// assertOnly fails unless the folder holds exactly the names.
func assertOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	if !slices.Equal(have, names) {
		t.Errorf("%s holds %q, want %q", dir, have, names)
	}
}
