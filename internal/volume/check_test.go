//go:build linux

package volume_test

import (
	"io/fs"
	"os"
	"strings"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/volume"
)

func TestCheckPaths(t *testing.T) {
	long := strings.Repeat("x", 255)
	for name, tc := range map[string]struct {
		path string
		says string // "" means accepted
	}{
		"plain":                      {"a", ""},
		"nested":                     {"a/b/c", ""},
		"dots inside":                {"a/..b", ""},
		"dots in the middle":         {"a..b", ""},
		"hidden":                     {".hidden", ""},
		"blank":                      {" a b ", ""},
		"not UTF-8":                  {"\xff", ""},
		"longest component":          {long, ""},
		"deepest":                    {strings.Repeat("d/", 63) + "f", ""},
		"empty":                      {"", "must not be empty"},
		"absolute":                   {"/a", "must be a relative path"},
		"the volume itself":          {".", "not the volume itself"},
		"trailing slash":             {"a/", "must not end in a slash"},
		"parent":                     {"..", "must not contain '..'"},
		"parent inside":              {"a/../b", "must not contain '..'"},
		"parent first":               {"../a", "must not contain '..'"},
		"starts with dots":           {"..a", "must not start with '..'"},
		"the layout's link":          {"..data", "must not start with '..'"},
		"below the layout's link":    {"..data/a", "must not start with '..'"},
		"three dots":                 {"...", "must not start with '..'"},
		"here first":                 {"./a", "must not contain '.'"},
		"here inside":                {"a/./b", "must not contain '.'"},
		"empty component":            {"a//b", "must not contain '.' or empty components"},
		"NUL":                        {"a\x00b", "must not contain NUL"},
		"component too long":         {long + "x", "component longer than 255"},
		"path too long":              {strings.Repeat(long+"/", 16) + "x", "longer than 4096"},
		"too deep":                   {strings.Repeat("d/", 64) + "f", "more than 64 components"},
		"newline, shown in one line": {"/a\nb", `"/a\nb"`},
	} {
		t.Run(name, func(t *testing.T) {
			files := []provider.File{file("other", "x"), file(tc.path, "x")}
			err := volume.Check(files)
			if tc.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				root := folderVolume(t)
				mustWrite(t, root, files)
				assertHolds(t, root, files)
				return
			}
			assertKind(t, err, provider.Invalid, tc.says)
			if strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("error has control characters: %q", err)
			}
			if got := provider.ErrorsOf(err)[0].Object; got != "secret/"+tc.path {
				t.Errorf("error is about object %q", got)
			}
			root := folderVolume(t)
			if _, err := volume.Write(root, files, volume.Options{}); err == nil {
				t.Error("Write accepts what Check refuses")
			}
			if entries, _ := os.ReadDir(root); len(entries) != 0 {
				t.Errorf("a refused write left %v", entries)
			}
		})
	}
}

func TestCheckConflicts(t *testing.T) {
	t.Attr("conformance", "10.3/set-id-bits-are-not-honoured")
	for name, tc := range map[string]struct {
		files []provider.File
		says  []string
	}{
		"same path twice": {[]provider.File{
			{Path: "a", Object: "secret/one"}, {Path: "b"}, {Path: "a", Object: "key/two"},
		}, []string{`file "a"`, "secret/one", "key/two", "another objectAlias"}},
		"same path, provider names no object": {[]provider.File{{Path: "a"}, {Path: "a"}},
			[]string{`file "a" would be written twice`}},
		"file and folder": {[]provider.File{
			{Path: "a/b", Object: "secret/below"}, {Path: "a", Object: "secret/above"},
		}, []string{`"a"`, `"a/b"`, "secret/below", "secret/above", "would be a folder", "another objectAlias"}},
		"file and folder, far apart": {[]provider.File{
			{Path: "a", Object: "1"}, {Path: "a-b", Object: "2"}, {Path: "a/b/c/d", Object: "3"},
		}, []string{`"a"`, `"a/b/c/d"`}},
		"mode with setuid": {[]provider.File{{Path: "a", Mode: 0o755 | fs.ModeSetuid}}, []string{`"a"`, "permission bits", "filePermission"}},
		"mode beyond 0777": {[]provider.File{{Path: "a", Mode: 0o4755}}, []string{"permission bits"}},
		"mode of a folder": {[]provider.File{{Path: "a", Mode: fs.ModeDir | 0o755}}, []string{"permission bits"}},
	} {
		t.Run(name, func(t *testing.T) {
			assertKind(t, volume.Check(tc.files), provider.Invalid, tc.says...)
		})
	}
}

func TestCheckReportsAllAtOnceButNotWithoutEnd(t *testing.T) {
	err := volume.Check([]provider.File{file("/a", ""), file("ok", ""), file("..b", ""), file("ok", "")})
	if got := len(provider.ErrorsOf(err)); got != 3 {
		t.Errorf("%d failures, want 3: %v", got, err)
	}
	err = volume.Check(make([]provider.File, 1_000_000))
	if got := len(provider.ErrorsOf(err)); got != 20 {
		t.Errorf("%d failures, want 20", got)
	}
	err = volume.Check([]provider.File{file("/"+strings.Repeat("x", 1<<20), "")})
	if len(err.Error()) > 1000 {
		t.Errorf("error has %d bytes", len(err.Error()))
	}
}

func TestCheckBounds(t *testing.T) {
	many := make([]provider.File, volume.MaxEntries)
	for i := range many {
		many[i] = file(strings.Repeat("x", i%200+1)+string(rune('a'+i/200)), "")
	}
	if err := volume.Check(many); err != nil {
		t.Errorf("as many files as allowed: %v", err)
	}
	assertKind(t, volume.Check(append(many, file("one-more", ""))), provider.Invalid, "exceeds", "several volumes")
	many[0].Path = "folder/file" // now there is a folder too
	assertKind(t, volume.Check(many), provider.Invalid, "exceeds")

	half := provider.Contents(make([]byte, volume.MaxBytes/2))
	large := []provider.File{{Path: "a", Contents: half}, {Path: "b", Contents: half}}
	if err := volume.Check(large); err != nil {
		t.Errorf("as many bytes as allowed: %v", err)
	}
	assertKind(t, volume.Check(append(large, file("c", "x"))), provider.Invalid, "exceeds")
}
