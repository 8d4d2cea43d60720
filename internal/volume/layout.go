package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	dataLink = "..data"     // -> the current generation
	dataTemp = "..data_tmp" // the next ..data of upstream's writer, for as long as its swap takes

	folderMode fs.FileMode = 0o755
)

// generationName matches the folders of this package and of upstream's writer. Whatever has such a name is a
// generation, or a temporary name of this package, which has the same form so that one rule cleans up both.
var generationName = regexp.MustCompile(`^\.\.\d{4}(_\d\d){5}\..+$`)

// newName returns a name for a generation. The clock is for people; the random part and exclusive creation make it unique.
func newName() string {
	return time.Now().UTC().Format("..2006_01_02_15_04_05.") + strconv.FormatUint(1e9+rand.Uint64N(9e9), 10)
}

// A volume is an open target folder.
type volume struct {
	path string
	root *os.Root
	dir  *os.File // the same folder, for listing and for what os.Root does not have
}

// openVolume opens the folder at path, which must not be a symbolic link itself. The folders above are the caller's and are trusted.
func openVolume(path string) (*volume, error) {
	path = filepath.Clean(path) // a slash at the end would follow a link
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("opening volume: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("opening volume: %s is a %s, not a folder", path, kindOf(info.Mode()))
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("opening volume: %w", err)
	}
	v := &volume{path: path, root: root}
	opened, err := root.Stat(".")
	if err == nil && !os.SameFile(info, opened) {
		err = fmt.Errorf("%s was replaced meanwhile", path)
	}
	if err == nil {
		v.dir, err = root.OpenFile(".", openFolderFlags, 0)
	}
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("opening volume: %w", err)
	}
	return v, nil
}

func (v *volume) close() {
	v.dir.Close()
	v.root.Close()
}

// current returns the name of the generation that ..data points at, "" if it points at none: absent, dangling, or
// planted (anything but the name of a folder right below the target).
func (v *volume) current() (string, error) {
	dangling := ""
	for {
		name, err := v.readlink(dataLink)
		if err != nil || name == dangling || !mayBeGeneration(name) {
			return "", err
		}
		info, err := v.root.Lstat(name)
		switch {
		case err == nil && info.IsDir():
			return name, nil
		case err == nil:
			return "", nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("inspecting generation: %w", err)
		}
		dangling = name // unless a Write has pointed ..data elsewhere and removed the old generation since it was read
	}
}

// mayBeGeneration reports whether the target of ..data names something of the layout right below the volume's root.
func mayBeGeneration(name string) bool {
	return strings.HasPrefix(name, "..") && len(name) <= maxComponent && name != ".." && name != dataLink && name != dataTemp && !strings.ContainsAny(name, `/\`)
}

// readlink returns the target of the link name, "" if name is absent or no link.
func (v *volume) readlink(name string) (string, error) {
	target, err := v.root.Readlink(name)
	if err == nil {
		return target, nil
	}
	info, serr := v.root.Lstat(name)
	if errors.Is(serr, fs.ErrNotExist) || serr == nil && info.Mode().Type() != fs.ModeSymlink {
		return "", nil
	}
	return "", fmt.Errorf("reading link %s: %w", quote(name), err)
}

// exists reports whether a generation has the top-level name.
func (v *volume) exists(generation, name string) bool {
	if generation == "" {
		return false
	}
	_, err := v.root.Lstat(generation + "/" + name)
	return err == nil
}

// errReplaced is what is opened not being what was looked at before.
var errReplaced = errors.New("it was replaced meanwhile")

// openFile opens a regular file, of which info is known, for reading. It never follows a link at the last component and never
// blocks.
func (v *volume) openFile(name string, info fs.FileInfo) (*os.File, error) {
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is a %s, not a regular file", quote(name), kindOf(info.Mode()))
	}
	return v.openExactly(name, openFileFlags, info)
}

// openFolder opens a folder for listing, with the same care.
func (v *volume) openFolder(name string) (*os.File, error) {
	info, err := v.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is a %s, not a folder", quote(name), kindOf(info.Mode()))
	}
	return v.openExactly(name, openFolderFlags, info)
}

func (v *volume) openExactly(name string, flags int, info fs.FileInfo) (*os.File, error) {
	f, err := v.root.OpenFile(name, flags, 0)
	if err != nil {
		return nil, err
	}
	// os.Root follows links that stay inside; one that was put there since Lstat shows here.
	opened, err := f.Stat()
	if err == nil && !os.SameFile(info, opened) {
		err = fmt.Errorf("%s: %w", quote(name), errReplaced)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sub opens a folder below v as a volume of its own: paths in it are resolved from there, and do not lead out of it.
func (v *volume) sub(name string) (*volume, error) {
	f, err := v.openFolder(name)
	if err != nil {
		return nil, err
	}
	root, err := openRootAt(v.root, name, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &volume{path: v.path + "/" + name, root: root, dir: f}, nil
}

// walk calls fn for every entry below v, folders before what is in them, with paths relative to v. More entries than a content
// can have are an error.
func (v *volume) walk(fn func(rel string, info fs.FileInfo) error) error {
	pending := []string{"."}
	count := 0
	for len(pending) > 0 {
		dir := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		err := v.list(dir, func(name string) error {
			rel := name
			if dir != "." {
				rel = dir + "/" + name
			}
			if count++; count > MaxEntries || strings.Count(rel, "/") >= MaxDepth {
				return errOversized
			}
			info, err := v.root.Lstat(rel)
			if err != nil {
				return err
			}
			if info.IsDir() {
				pending = append(pending, rel)
			}
			return fn(rel, info)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// errOversized is what walk returns for a generation that no write of this package made.
var errOversized = errors.New("generation has more entries than a volume can hold")

// list calls fn with the names in a folder, in no order, a bounded number at a time.
func (v *volume) list(folder string, fn func(name string) error) error {
	f, err := v.openFolder(folder)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(256)
		for _, name := range names {
			if err := fn(name); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func kindOf(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "folder"
	case m.IsRegular():
		return "regular file"
	case m&fs.ModeSymlink != 0:
		return "symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}
