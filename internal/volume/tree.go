package volume

import (
	"maps"
	"path"
	"slices"
	"strings"

	"keymount/internal/provider"
)

// A tree is a content that passed Check, in the order in which it is written.
type tree struct {
	files   []*provider.File          // sorted by path
	byPath  map[string]*provider.File // the same
	folders []string                  // sorted, parents first; without the generation's own
	isDir   map[string]bool           // the same, for look-ups
	group   *int
}

func newTree(files []provider.File, opt Options) *tree {
	t := &tree{byPath: make(map[string]*provider.File, len(files)), isDir: map[string]bool{}, group: opt.Group}
	for i := range files {
		f := &files[i]
		t.files = append(t.files, f)
		t.byPath[f.Path] = f
		for dir := path.Dir(f.Path); dir != "." && !t.isDir[dir]; dir = path.Dir(dir) {
			t.isDir[dir] = true
		}
	}
	slices.SortFunc(t.files, func(a, b *provider.File) int { return strings.Compare(a.Path, b.Path) })
	t.folders = slices.Sorted(maps.Keys(t.isDir))
	return t
}

// has reports whether name is a top-level name of the content.
func (t *tree) has(name string) bool { return t.byPath[name] != nil || t.isDir[name] }

// top returns the sorted top-level names.
func (t *tree) top() []string {
	names := map[string]bool{}
	for _, f := range t.files {
		first, _, _ := strings.Cut(f.Path, "/")
		names[first] = true
	}
	return slices.Sorted(maps.Keys(names))
}
