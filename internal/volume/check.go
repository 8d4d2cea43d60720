package volume

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"keymount/internal/provider"
)

// The bounds of one volume. What a vault can hold is far below them; they are there so that a provider cannot
// exhaust the node.
const (
	// MaxEntries is the number of files and folders of one generation.
	MaxEntries = 10_000
	// MaxBytes is the size of all contents of one generation together, in bytes.
	MaxBytes = 256 << 20
	// MaxDepth is the number of components of one path.
	MaxDepth = 64

	maxPath      = 4096 // bytes of a path, as upstream's driver has it
	maxComponent = 255  // bytes of one component, NAME_MAX on Linux
	maxReported  = 20   // failures that Check names before it stops
)

// Check reports every reason why files cannot be the content of a volume, as provider.Errors of the kind Invalid that name the
// entries; nil if Write would accept them. It looks at paths, modes and sizes, never at bytes.
//
// Paths are relative, with forward slashes, in their shortest form, and name something: not empty, not ".", no ".."
// component, no NUL, no trailing slash, at most 4096 bytes, 255 per component and MaxDepth components. The first component
// does not start with "..", which is the layout's own. Modes have permission bits only. No path occurs twice, and none is
// both a file and a folder.
func Check(files []provider.File) error {
	var problems provider.Errors
	add := func(f *provider.File, message, remedy string) bool {
		problems = append(problems, &provider.Error{Kind: provider.Invalid, Object: f.Object, Message: message, Remedy: remedy})
		return len(problems) < maxReported
	}
	seen := make(map[string]*provider.File, len(files))
	folders := make(map[string]*provider.File) // folder -> the first file below it
	total := 0
	for i := range files {
		f := &files[i]
		if message, remedy := checkOne(f); message != "" {
			if !add(f, message, remedy) {
				return problems
			}
			continue
		}
		total += len(f.Contents)
		if other := seen[f.Path]; other != nil {
			if !add(f, fmt.Sprintf("file %s would be written twice, from %s and from %s", quote(f.Path), source(other), source(f)),
				"give one of them another objectAlias") {
				return problems
			}
			continue
		}
		seen[f.Path] = f
		for dir := path.Dir(f.Path); dir != "." && folders[dir] == nil; dir = path.Dir(dir) {
			folders[dir] = f
		}
		if len(seen)+len(folders) > MaxEntries || total > MaxBytes {
			add(f, fmt.Sprintf("content of the volume exceeds %d files and folders or %d bytes", MaxEntries, MaxBytes),
				"spread the objects over several volumes")
			return problems
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(folders)) {
		file := seen[dir]
		if file == nil {
			continue
		}
		below := folders[dir]
		if !add(below, fmt.Sprintf("file %s (from %s) would be a folder for %s (from %s)", quote(dir), source(file), quote(below.Path), source(below)),
			"give one of them another objectAlias") {
			return problems
		}
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// checkOne returns what is wrong with a file by itself, "" if nothing is.
func checkOne(f *provider.File) (message, remedy string) {
	p := f.Path
	const rename = "give the object an objectAlias that is a relative path such as \"folder/name\""
	bad := func(why string) (string, string) {
		return fmt.Sprintf("file name %s of %s %s", quote(p), source(f), why), rename
	}
	switch {
	case p == "":
		return bad("must not be empty")
	case len(p) > maxPath:
		return bad(fmt.Sprintf("is longer than %d bytes", maxPath))
	case strings.ContainsRune(p, 0):
		return bad("must not contain NUL")
	case strings.HasPrefix(p, "/"):
		return bad("must be a relative path")
	case p == ".":
		return bad("must name a file, not the volume itself")
	case strings.HasSuffix(p, "/"):
		return bad("must not end in a slash")
	case f.Mode&^fs.ModePerm != 0:
		return fmt.Sprintf("mode %#o of file %s has more than permission bits", uint32(f.Mode), quote(p)), "use a filePermission between 0000 and 0777"
	}
	parts := strings.Split(p, "/")
	if slices.Contains(parts, "..") {
		return bad("must not contain '..'")
	}
	if strings.HasPrefix(p, "..") {
		return bad("must not start with '..', which names the volume's own folders")
	}
	if len(parts) > MaxDepth {
		return bad(fmt.Sprintf("has more than %d components", MaxDepth))
	}
	for _, part := range parts {
		if len(part) > maxComponent {
			return bad(fmt.Sprintf("has a component longer than %d bytes", maxComponent))
		}
	}
	if path.Clean(p) != p {
		return bad("must not contain '.' or empty components")
	}
	// What one system alone cannot take: backslashes, drives and device names on Windows.
	if filepath.Separator != '/' && strings.ContainsRune(p, filepath.Separator) || !filepath.IsLocal(filepath.FromSlash(p)) {
		return bad("cannot be used on this system")
	}
	return "", ""
}

func source(f *provider.File) string {
	if f.Object == "" {
		return "an object that the provider does not name"
	}
	return quote(f.Object)
}

// quote makes a name from outside fit for one line of a log.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		return fmt.Sprintf("%q...", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
