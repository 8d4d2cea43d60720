package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"keymount/internal/provider"
)

// ErrNotMounted is what reading from a target matches where there is no volume, or none any more.
var ErrNotMounted = errors.New("no volume is mounted there")

// Read returns those of the files named by paths that the volume at target holds; see readPaths. A target that does not exist is an error that
// matches ErrNotMounted.
func (Folder) Read(target string, paths []string, limit int) (map[string]provider.Contents, error) {
	v, err := openVolume(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading %s: %w", target, ErrNotMounted)
	}
	if err != nil {
		return nil, err
	}
	defer v.close()
	return v.readPaths(paths, selection{limit: limit})
}

// A selection bounds what readPaths takes.
type selection struct {
	limit  int    // bytes together
	device uint64 // files of another file system are not the volume's; 0 if that cannot be told by a number
}

// readPaths returns the contents of the regular files at paths, all of one generation; a volume that a provider wrote itself, without ..data, is
// read from its root. Links are followed as far as they stay inside. What is absent, leads outside, is no regular file, or has
// a path that Check refuses, is absent from the result. More bytes than the limit are an error.
func (v *volume) readPaths(paths []string, sel selection) (map[string]provider.Contents, error) {
	// What changes while it is read is read again. Each change is a write of a whole volume, so that nobody keeps up with this.
	const tries = 100
	had := false
	var err error
	for range tries {
		before, cerr := v.current()
		if cerr != nil {
			return nil, cerr
		}
		if had && before == "" {
			// An unmount takes ..data away first. Nothing else does.
			return nil, fmt.Errorf("reading %s: it was emptied meanwhile: %w", v.path, ErrNotMounted)
		}
		had = before != ""
		var got map[string]provider.Contents
		got, err = v.readPathsIn(before, paths, sel)
		after, cerr := v.current()
		if cerr != nil {
			return nil, cerr
		}
		switch {
		case after != before:
			err = errReplaced
		case !errors.Is(err, errReplaced):
			return got, err
		}
	}
	return nil, fmt.Errorf("reading %s: it changed %d times meanwhile: %w", v.path, tries, err)
}

// readPathsIn reads from one generation, or from the root of the volume if generation is "".
func (v *volume) readPathsIn(generation string, paths []string, sel selection) (map[string]provider.Contents, error) {
	from := v
	if generation != "" {
		gen, err := v.sub(generation)
		if err != nil {
			return nil, fmt.Errorf("opening generation: %w", err)
		}
		defer gen.close()
		from = gen
	}
	got := make(map[string]provider.Contents, len(paths))
	left := sel.limit
	for _, p := range paths {
		if _, again := got[p]; again {
			continue
		}
		if problem, _ := checkOne(&provider.File{Path: p}); problem != "" {
			continue
		}
		data, found, err := from.readPath(p, left, sel.device)
		if errors.Is(err, errLarge) {
			return nil, fmt.Errorf("reading %s of %s: with it the files hold more than %d bytes together", quote(p), v.path, sel.limit)
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s of %s: %w", quote(p), v.path, err)
		}
		if found {
			got[p] = data
			left -= len(data)
		}
	}
	return got, nil
}

// readPath reads one file. Stat opens nothing but folders, by calls that fail on whatever else stands there.
func (v *volume) readPath(name string, limit int, device uint64) (data []byte, found bool, err error) {
	info, err := v.root.Stat(name)
	if err != nil {
		if isAbsent(err) {
			err = nil
		}
		return nil, false, err
	}
	if !info.Mode().IsRegular() || device != 0 && deviceOf(info) != device {
		return nil, false, nil
	}
	f, err := v.openFile(name, info)
	if err != nil {
		if isAbsent(err) { // it was there a moment ago
			err = errReplaced
		}
		return nil, false, err
	}
	defer f.Close()
	data, err = readAll(f, info.Size(), limit)
	return data, err == nil, err
}

// isAbsent reports whether an os.Root's error says that it has no such file, as opposed to one that it has and cannot give. Its own errors,
// which are no system's, are about links that lead outside.
func isAbsent(err error) bool {
	var path *fs.PathError
	if !errors.As(err, &path) {
		return false
	}
	var system syscall.Errno
	if !errors.As(err, &system) {
		return true
	}
	for _, absent := range []error{os.ErrNotExist, syscall.ENOTDIR, syscall.ELOOP, syscall.ENAMETOOLONG} {
		if errors.Is(err, absent) {
			return true
		}
	}
	return false
}
