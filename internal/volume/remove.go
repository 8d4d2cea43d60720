package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

const (
	maxLeftovers = 4096 // names that one pass over a target removes; the next write goes on
	removeDepth  = 32   // levels that removeTree descends before it moves what is deeper up
)

// removeStale removes what writes that were killed left behind, and what a write no longer needs: every generation but keep,
// ..data_tmp, and the links into ..data whose names the content does not have.
func (v *volume) removeStale(keep string, has func(name string) bool) error {
	return v.removeNames(func(name string) bool {
		if strings.HasPrefix(name, "..") {
			return name != keep && (name == dataTemp || generationName.MatchString(name))
		}
		return !has(name) && v.isOwnLink(name)
	})
}

func anyName(string) bool { return true }
func noName(string) bool  { return false }

// isOwnLink reports whether name is a link as this layout has them: name -> ..data/name.
func (v *volume) isOwnLink(name string) bool {
	target, err := v.readlink(name)
	return err == nil && target == dataLink+"/"+name
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
// handles and work stay bounded.
func (v *volume) removeTree(name string) error {
	pending := []string{name}
	for len(pending) > 0 {
		next := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		moveUp := func(below string) error {
			up := newName()
			pending = append(pending, up)
			return v.root.Rename(next+"/"+below, up)
		}
		if err := v.removeLevel(next, "", removeDepth, moveUp); err != nil {
			return err
		}
	}
	return nil
}

// removeLevel removes the entry name of v, which lies at the path below in the tree, down to depth levels; moveUp gets the rest.
func (v *volume) removeLevel(name, below string, depth int, moveUp func(below string) error) error {
	if err := v.root.Remove(name); err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if info, serr := v.root.Lstat(name); serr != nil || !info.IsDir() {
		return ignoreAbsent(err)
	}
	if depth == 0 {
		return moveUp(below)
	}
	dir, err := v.subToEmpty(name)
	if err != nil {
		return ignoreAbsent(err)
	}
	defer dir.close()
	for {
		names, err := dir.someNames()
		if err != nil {
			return err
		}
		if len(names) == 0 {
			return ignoreAbsent(v.root.Remove(name))
		}
		for _, child := range names {
			if err := dir.removeLevel(child, strings.TrimPrefix(below+"/"+child, "/"), depth-1, moveUp); err != nil {
				return err
			}
		}
	}
}

// subToEmpty opens a folder that is about to be emptied, unless something is mounted on it.
func (v *volume) subToEmpty(name string) (*volume, error) {
	dir, err := v.sub(name)
	if errors.Is(err, fs.ErrPermission) && unixModes {
		// A folder that lost its mode to the umask when its writer was killed, or to a provider.
		if err := v.root.Chmod(name, 0o700); err != nil {
			return nil, err
		}
		dir, err = v.sub(name)
	}
	if err != nil {
		return nil, err
	}
	mounted, err := isMountRoot(dir.dir)
	if err == nil && mounted {
		err = fmt.Errorf("something is mounted at %s, which is left alone", quote(name))
	}
	if err != nil {
		dir.close()
		return nil, err
	}
	return dir, nil
}

// someNames returns a bounded number of the names in the folder, from its beginning.
func (v *volume) someNames() ([]string, error) {
	if _, err := v.dir.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	names, err := v.dir.Readdirnames(256)
	if len(names) > 0 || err == io.EOF {
		return names, nil
	}
	return nil, err
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
