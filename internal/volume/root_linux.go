package volume

import (
	"errors"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// exchange lets two top-level names trade places at once.
func (v *volume) exchange(a, b string) error {
	fd := int(v.dir.Fd())
	err := unix.Renameat2(fd, a, fd, b, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system or kernel without it
		return v.exchangeByRename(a, b)
	}
	return err
}

// openRootAt opens the folder f, which is name in root, as a root. By its handle, since a name could have become a pipe
// meanwhile, which blocks who opens it.
func openRootAt(root *os.Root, name string, f *os.File) (*os.Root, error) {
	sub, err := os.OpenRoot(handlePath(f))
	if errors.Is(err, fs.ErrNotExist) { // no /proc here
		return root.OpenRoot(name)
	}
	return sub, err
}

// handlePath names an open folder for system calls that only take a path.
func handlePath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
