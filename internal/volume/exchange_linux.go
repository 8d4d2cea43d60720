package volume

import (
	"errors"

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
