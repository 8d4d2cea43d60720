// Package volume is a volume on disk: what is mounted at a target, and the generations of files in it.
//
// It owns the layout that applications watch, which is that of Kubernetes' Secret volumes: each write makes a whole new
// folder "..YYYY_MM_DD_HH_MM_SS.<random>" (a generation), one rename points the link "..data" at it, and every top-level
// name is a link "name -> ..data/name". A reader that resolves "..data" once sees one complete generation. After a kill at
// any system call the old generation or the new one is there, whole; what the kill left behind is removed by the next write.
//
// A target is hostile: providers, and through them other people, can write there too. Every access goes through an os.Root of
// the target, so that no link leads out of it; nothing is opened before it is known to be a regular file or a folder, and
// nothing that is opened can block; nothing is removed across a mount.
//
// The package imports provider for its file type and error kinds, and nothing else of the module. All functions may be called
// concurrently for different targets. For one target Read and Inspect may be called at any time; Write, Mount and
// Unmount must be called one at a time, which is the caller's business (internal/publish has a lock per volume).
package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"keymount/internal/provider"
)

// Options are what a write does beyond the files themselves.
type Options struct {
	// Group becomes the group owner of every file and folder of the generation; nil leaves what the system gives. Modes are
	// never widened for it. Not on Windows.
	Group *int
}

// A Change says what a write did, as sorted paths. A file whose bytes, mode or group changed is Updated.
type Change struct {
	Added, Updated, Removed []string
	// Leftover says what of an earlier generation could not be removed, nil if nothing is left. The new content is in place
	// all the same, and the next write tries again.
	Leftover error
}

// Empty reports whether the volume already held exactly what was to be written.
func (c Change) Empty() bool { return len(c.Added)+len(c.Updated)+len(c.Removed) == 0 }

// A Generation is the whole content of a volume at one moment.
type Generation struct {
	// Name is the folder of the generation, such as "..2026_01_31_12_00_00.1234567890".
	Name string
	// Files are sorted by path. Object is "": a volume does not remember it.
	Files []provider.File
}

// ErrNoGeneration is returned by Read for a target without a whole generation: absent, empty, or written by a provider itself.
var ErrNoGeneration = errors.New("volume holds no generation")

// Write makes files the whole content of the volume at root, atomically: readers see all of the old content or all of the new.
//
// It compares with what really is on disk and changes nothing, not even a timestamp, if bytes, modes and group are already
// right. Leftovers of a write that was killed are removed either way. What stands at the first component of a path (a file
// that a provider wrote there itself) is replaced; other foreign names are left alone. No files is a content too.
//
// On failure the old content stays. Errors are those of Check, or tell what could not be written. A file that this process may not
// read back (mode 0200, not root) counts as changed every time.
func Write(root string, files []provider.File, opt Options) (Change, error) {
	if err := Check(files); err != nil {
		return Change{}, err
	}
	if opt.Group != nil && *opt.Group < 0 {
		return Change{}, &provider.Error{Kind: provider.Invalid, Message: fmt.Sprintf("group %d of the volume is negative", *opt.Group)}
	}
	v, err := openVolume(root)
	if err != nil {
		return Change{}, err
	}
	defer v.close()
	unlock, err := v.lockOut()
	if err != nil {
		return Change{}, err
	}
	defer unlock()
	return v.write(newTree(files, opt))
}

func (v *volume) write(want *tree) (Change, error) {
	current, err := v.current()
	if err != nil {
		return Change{}, err
	}
	change, same := v.compare(current, want)
	now := current
	if !same {
		// Before the new one is written: in a tmpfs of bounded size half a generation may be what fills it.
		v.removeStale(current, anyName)
		if now, err = v.replace(current, want); err != nil {
			return Change{}, hintFull(err)
		}
	}
	for _, name := range want.top() {
		// After the swap, so that a name which a provider wrote itself has its old content until it has its new one.
		if _, err := v.link(name, true); err != nil {
			return Change{}, err
		}
	}
	if current != "" && current != now {
		change.Leftover = v.removeTree(current) // whatever its name
	}
	change.Leftover = errors.Join(change.Leftover, v.removeStale(now, want.has))
	return change, nil
}

// replace writes want as a new generation, swaps it in and returns its name. On failure it takes back what it made.
func (v *volume) replace(current string, want *tree) (name string, err error) {
	var linked []string
	done := false
	defer func() {
		if done {
			return
		}
		// The error of the write matters; what cannot be taken back is a leftover for the next one.
		v.removeStale(current, anyName)
		for _, name := range linked {
			v.root.Remove(name)
		}
	}()
	if name, err = v.writeGeneration(want); err != nil {
		return "", err
	}
	if linkBeforeSwap {
		for _, top := range want.top() {
			existed := v.exists(current, top)
			made, err := v.link(top, existed)
			if err != nil {
				return "", err
			}
			if made && !existed {
				linked = append(linked, top)
			}
		}
	}
	if err := v.swap(name); err != nil {
		return "", err
	}
	done = true
	return name, nil
}

// Read returns the current generation. While Write changes the volume, Read returns the generation before or after, whole.
// ErrNoGeneration (for errors.Is) says that there is none. Content beyond what Check allows is an error.
func Read(root string) (*Generation, error) {
	v, err := openVolume(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading %s: %w", root, ErrNoGeneration)
	}
	if err != nil {
		return nil, err
	}
	defer v.close()
	// A generation that falls away while it is read was replaced by another one, which is then read instead. Nobody
	// changes a volume this often in the time of one read.
	const tries = 1000
	for range tries {
		name, err := v.current()
		if err != nil {
			return nil, err
		}
		files, readErr := v.readGeneration(name)
		after, err := v.current()
		if err != nil {
			return nil, err
		}
		switch {
		case after != name:
		case name == "":
			return nil, fmt.Errorf("reading %s: %w", root, ErrNoGeneration)
		case readErr != nil:
			return nil, readErr
		default:
			return &Generation{Name: name, Files: files}, nil
		}
	}
	return nil, fmt.Errorf("reading %s: it changed %d times meanwhile", root, tries)
}

func (v *volume) readGeneration(name string) ([]provider.File, error) {
	if name == "" {
		return nil, nil
	}
	var files []provider.File
	total := 0
	gen, err := v.sub(name)
	if err != nil {
		return nil, err
	}
	defer gen.close()
	err = gen.walk(func(rel string, info fs.FileInfo) error {
		if info.IsDir() {
			return nil
		}
		f, err := gen.openFile(rel, info)
		if err != nil {
			return err
		}
		defer f.Close()
		data, err := readAll(f, info.Size(), MaxBytes-total)
		if err != nil {
			return fmt.Errorf("reading %s: %w", quote(rel), err)
		}
		total += len(data)
		files = append(files, provider.File{Path: rel, Mode: info.Mode().Perm(), Contents: data})
		return nil
	})
	slices.SortFunc(files, func(a, b provider.File) int { return strings.Compare(a.Path, b.Path) })
	return files, err
}

// hintFull adds what to do when the volume is full, which otherwise reads like a full disk.
func hintFull(err error) error {
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return &provider.Error{
		Kind:    provider.Internal,
		Message: err.Error(),
		Remedy:  "the volume has no room for the new content beside the old: raise its size, or mount fewer or smaller objects",
		Cause:   err,
	}
}
