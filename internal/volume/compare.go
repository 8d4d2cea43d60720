package volume

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"keymount/internal/provider"
)

// compare says how the generation on disk differs from want. It holds one small buffer of content at a time. A generation
// that cannot be compared (damaged, oversized, unreadable) is one that has to be replaced, not a failure.
func (v *volume) compare(generation string, want *tree) (change Change, same bool) {
	var changed []string // files, and folders as "folder/", whose content is the same but whose attributes are not
	have := map[string]bool{}
	gen, err := v.sub(generation)
	if generation != "" && err == nil {
		same = true
		defer gen.close()
		if info, err := gen.dir.Stat(); err != nil || !attributesMatch(info, folderMode, want.group) {
			changed = append(changed, "")
		}
		err = gen.walk(func(rel string, info fs.FileInfo) error {
			file := want.byPath[rel]
			switch {
			case info.IsDir() && want.isDir[rel]:
				if !attributesMatch(info, folderMode, want.group) {
					changed = append(changed, rel+"/")
				}
			case info.IsDir():
				same = false // what is in it is reported by itself
			case file == nil:
				change.Removed = append(change.Removed, rel)
			default:
				have[rel] = true
				if !gen.equal(rel, info, file, want.group) {
					change.Updated = append(change.Updated, rel)
				}
			}
			return nil
		})
		same = same && err == nil
	}
	for _, f := range want.files {
		if !have[f.Path] {
			change.Added = append(change.Added, f.Path)
			continue
		}
		for _, dir := range changed {
			if strings.HasPrefix(f.Path, dir) && !slices.Contains(change.Updated, f.Path) {
				change.Updated = append(change.Updated, f.Path)
			}
		}
	}
	slices.Sort(change.Updated)
	slices.Sort(change.Removed)
	return change, same && change.Empty() && len(changed) == 0
}

// equal reports whether the file on disk has the mode, group and bytes of want.
func (v *volume) equal(name string, info fs.FileInfo, want *provider.File, group *int) bool {
	if !info.Mode().IsRegular() || info.Size() != int64(len(want.Contents)) || !attributesMatch(info, want.Mode, group) {
		return false
	}
	f, err := v.openFile(name, info)
	if err != nil {
		return false
	}
	defer f.Close()
	return sameBytes(f, want.Contents)
}

func sameBytes(r io.Reader, want []byte) bool {
	buf := make([]byte, min(len(want)+1, 32<<10)) // one more, so that a file which grew shows
	for {
		n, err := r.Read(buf)
		if n > len(want) || !bytes.Equal(buf[:n], want[:n]) {
			return false
		}
		want = want[n:]
		if err == io.EOF {
			return len(want) == 0
		}
		if err != nil {
			return false
		}
	}
}

// errLarge is what readAll returns for a file beyond its limit.
var errLarge = errors.New("content is larger than a volume can hold")

// readAll reads a file of about size bytes, and at most limit bytes.
func readAll(f *os.File, size int64, limit int) ([]byte, error) {
	if size > int64(limit) {
		return nil, errLarge
	}
	var b bytes.Buffer
	b.Grow(int(size) + bytes.MinRead)
	n, err := io.Copy(&b, io.LimitReader(f, int64(limit)+1))
	if err == nil && n > int64(limit) {
		err = errLarge
	}
	return b.Bytes(), err
}
