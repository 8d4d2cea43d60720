package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

const (
	maxLeftovers = 4096 // names that one pass over a target removes; the next write goes on
	removeDepth  = 32   // levels that removeTree descends before it moves what is deeper up
)

// removeStale removes what writes that were killed left behind: every generation but keep, and ..data_tmp.
func (v *volume) removeStale(keep string) error {
	return v.removeNames(func(name string) bool {
		return name != keep && (name == dataTemp || generationName.MatchString(name))
	})
}

// removeLinks removes the top-level links into ..data that lead nowhere because the content no longer has the name.
func (v *volume) removeLinks(has func(name string) bool) error {
	return v.removeNames(func(name string) bool {
		if has(name) || name == dataLink || name == dataTemp {
			return false
		}
		return v.isOwnLink(name)
	})
}

// isOwnLink reports whether name is a link as this layout has them: name -> ..data/name.
func (v *volume) isOwnLink(name string) bool {
	target, err := v.readlink(name)
	return err == nil && target == dataLink+"/"+name
}

// removeGeneration removes a generation that is no longer the current one, whatever its name.
func (v *volume) removeGeneration(old, current string) error {
	if old == "" || old == current {
		return nil
	}
	return v.removeTree(old)
}

// removeNames removes the top-level names that match. It goes on after a failure.
func (v *volume) removeNames(match func(name string) bool) error {
	var names []string
	err := v.list(".", func(name string) error {
		if match(name) {
			names = append(names, name)
		}
		if len(names) == maxLeftovers {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	errs := []error{err}
	for _, name := range names {
		if err := v.removeTree(name); err != nil && len(errs) < maxReported {
			errs = append(errs, fmt.Errorf("removing leftover %s: %w", quote(name), err))
		}
	}
	return errors.Join(errs...)
}

var errEnough = errors.New("enough")

// removeTree removes whatever name is, without following links and without crossing into a mount. Absent is fine.
//
// The tree may be deeper than any path can be: what lies deeper than removeDepth is moved to the top and removed from there, so that
// the work stays proportional to the number of entries.
func (v *volume) removeTree(name string) error {
	pending := []string{name}
	for len(pending) > 0 {
		next := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		if err := v.removeLevel(next, 0, &pending); err != nil {
			return err
		}
	}
	return nil
}

func (v *volume) removeLevel(name string, depth int, pending *[]string) error {
	info, err := v.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return ignoreAbsent(v.root.Remove(name))
	}
	if depth == removeDepth {
		up := newName()
		*pending = append(*pending, up)
		return v.root.Rename(name, up)
	}
	for {
		names, err := v.someNames(name)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			return ignoreAbsent(v.root.Remove(name))
		}
		for _, child := range names {
			if err := v.removeLevel(name+"/"+child, depth+1, pending); err != nil {
				return err
			}
		}
	}
}

// someNames returns a bounded number of the names in a folder that is about to be emptied.
func (v *volume) someNames(folder string) ([]string, error) {
	f, err := v.openFolder(folder)
	if errors.Is(err, fs.ErrPermission) && unixModes {
		// A folder that lost its mode to the umask when its writer was killed, or to a provider.
		if err := v.root.Chmod(folder, 0o700); err != nil {
			return nil, err
		}
		f, err = v.openFolder(folder)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if mounted, err := isMountRoot(f); err != nil || mounted {
		return nil, errors.Join(err, mountedHere(mounted, folder))
	}
	names, err := f.Readdirnames(256)
	if len(names) > 0 {
		return names, nil
	}
	return nil, ignoreEOF(err)
}

func mountedHere(mounted bool, folder string) error {
	if !mounted {
		return nil
	}
	return fmt.Errorf("something is mounted at %s, which is left alone", quote(folder))
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
