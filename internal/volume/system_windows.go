package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

const (
	// unixModes is false: Windows has no modes, and a read-only file could not be removed.
	unixModes = false
	// linkBeforeSwap is false: a link is made for a file or for a folder, so its target must exist first.
	linkBeforeSwap = false

	openFileFlags   = os.O_RDONLY
	newFileFlags    = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	openFolderFlags = os.O_RDONLY
)

func attributesMatch(fs.FileInfo, fs.FileMode, *int) bool { return true }

// renameLink replaces name by temp. Windows may refuse to rename over a link to a folder; name is then missing for the time
// between two calls.
func (v *volume) renameLink(temp, name string) error {
	err := v.root.Rename(temp, name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := v.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return v.root.Rename(temp, name)
}

// hintLink says what to do where this user may not make symbolic links, without which there is no layout.
func hintLink(err error) error {
	const privilegeNotHeld = syscall.Errno(1314)
	if !errors.Is(err, privilegeNotHeld) {
		return err
	}
	return fmt.Errorf("%w (switch on Developer Mode, or run as a user with the right to create symbolic links)", err)
}

func (v *volume) lockOut() (unlock func(), err error) { return func() {}, nil }

func ownedByOther(fs.FileInfo) (uid int, other bool) { return 0, false }

func deviceOf(fs.FileInfo) uint64 { return 0 }
