package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

const (
	maxLeftovers  = 4096      // names that one pass over a target removes; the next write goes on
	removeDepth   = 32        // levels that removeTree descends before it moves what is deeper up
	removeEntries = 1_000_000 // entries that one removeTree removes
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
// handles and work stay bounded. Somebody may go on filling the tree, so there is an end to it.
func (v *volume) removeTree(name string) error {
	r := removal{top: v, pending: []string{name}, budget: removeEntries}
	for len(r.pending) > 0 {
		r.tree = r.pending[len(r.pending)-1]
		r.pending = r.pending[:len(r.pending)-1]
		if err := r.remove(v, r.tree, ""); err != nil {
			return err
		}
	}
	return nil
}

// A removal is one call of removeTree.
type removal struct {
	top     *volume
	tree    string   // the top-level name that is being removed
	pending []string // top-level names to go on with
	budget  int      // entries that may still be removed
}

// remove removes the entry name of dir, which lies at the path below in r.tree.
func (r *removal) remove(dir *volume, name, below string) error {
	if r.budget--; r.budget < 0 {
		return fmt.Errorf("there are more than %d entries", removeEntries)
	}
	if err := dir.root.Remove(name); err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if info, serr := dir.root.Lstat(name); serr != nil || !info.IsDir() {
		return ignoreAbsent(err)
	}
	if strings.Count(below, "/") == removeDepth {
		up := newName()
		r.pending = append(r.pending, up)
		return r.top.root.Rename(r.tree+below, up)
	}
	sub, err := dir.subToEmpty(name)
	if err != nil {
		return ignoreAbsent(err)
	}
	defer sub.close()
	for {
		names, err := sub.someNames()
		if err != nil {
			return err
		}
		if len(names) == 0 {
			return ignoreAbsent(dir.root.Remove(name))
		}
		for _, child := range names {
			if err := r.remove(sub, child, below+"/"+child); err != nil {
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
