// Package layer makes a layer of an image from files, links and bytes in memory: the same input gives the same bytes on
// every machine. It knows nothing of images or of what the files are. Its functions may be called concurrently.
package layer

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// An Entry is one file, link or folder of the layer; it belongs to root. Exactly one of Source, Content, Target and Folder
// says what it is. Folders above an entry need no entry of their own: they are made with mode 0755.
type Entry struct {
	Path    string      // in the image, absolute and clean
	Mode    fs.FileMode // permission bits and fs.ModeSticky
	Source  string      // a regular file on this machine, read when the layer is read
	Content []byte      // the bytes of the file
	Target  string      // what the symbolic link points to
	Folder  bool
}

// Options are what the entries share.
type Options struct {
	Time time.Time // of every entry; whole seconds
	Gzip bool      // whether the layer is compressed
}

// New returns the layer. The files of Entry.Source must not change while the layer is in use.
func New(entries []Entry, opt Options) (v1.Layer, error) {
	all, err := complete(entries)
	if err != nil {
		return nil, err
	}
	l := &tarLayer{entries: all, opt: opt}
	if err := l.measure(); err != nil {
		return nil, err
	}
	return l, nil
}

// complete checks the entries, adds the folders above them and sorts them, folders before what they hold.
func complete(entries []Entry) ([]Entry, error) {
	byPath := map[string]Entry{}
	for _, e := range entries {
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("putting %q into the image: %w", e.Path, err)
		}
		if _, twice := byPath[e.Path]; twice {
			return nil, fmt.Errorf("putting %q into the image: the path is given twice", e.Path)
		}
		byPath[e.Path] = e
	}
	for _, e := range entries {
		for dir := path.Dir(e.Path); dir != "/"; dir = path.Dir(dir) {
			above, ok := byPath[dir]
			if ok && !above.Folder {
				return nil, fmt.Errorf("putting %q into the image: %q is no folder", e.Path, dir)
			}
			if !ok {
				byPath[dir] = Entry{Path: dir, Mode: 0o755, Folder: true}
			}
		}
	}
	return slices.SortedFunc(maps.Values(byPath), func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) }), nil
}

func (e Entry) check() error {
	kinds := 0
	for _, is := range []bool{e.Source != "", e.Content != nil, e.Target != "", e.Folder} {
		if is {
			kinds++
		}
	}
	switch {
	case !path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path || e.Path == "/":
		return errors.New("the path must be absolute, without '.', '..', doubled or trailing slashes")
	case kinds != 1:
		return errors.New("it must be a file, bytes, a link or a folder, and only one of them")
	}
	return nil
}
