//go:build unix

package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"keymount/internal/provider"
)

const (
	// unixModes says that files have modes and groups here.
	unixModes = true
	// linkBeforeSwap says that a link may be made before its target exists.
	linkBeforeSwap = true

	openFileFlags   = os.O_RDONLY | syscall.O_NONBLOCK                           // a named pipe would block
	newFileFlags    = os.O_WRONLY | os.O_CREATE | os.O_EXCL | syscall.O_NONBLOCK // spares system calls of Go's poller
	openFolderFlags = os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_DIRECTORY
)

// attributesMatch reports whether mode and, if it is asked for, group are as wanted.
func attributesMatch(info fs.FileInfo, mode fs.FileMode, group *int) bool {
	bits := fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	if info.IsDir() {
		bits &^= fs.ModeSetgid // inherited from the folder above on some systems, and harmless
	}
	if info.Mode()&bits != mode {
		return false
	}
	if group == nil {
		return true
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int64(stat.Gid) == int64(*group)
}

func (v *volume) renameLink(temp, name string) error { return v.root.Rename(temp, name) }

func hintLink(err error) error { return err }

// lockOut keeps a second process from writing to the same folder, if only the folder's owner can open it (as with Folder). A
// folder that others can open is not locked: they could hold the lock for ever, and the daemon has its own. The lock also goes with the process.
func (v *volume) lockOut() (unlock func(), err error) {
	info, err := v.dir.Stat()
	if err != nil {
		return nil, fmt.Errorf("inspecting volume: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return func() {}, nil
	}
	fd := int(v.dir.Fd())
	err = syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, &provider.Error{
			Kind:    provider.Unavailable,
			Message: fmt.Sprintf("another process is writing to %s", v.path),
			Remedy:  "end it, or choose another folder",
		}
	}
	if err != nil {
		return nil, fmt.Errorf("locking volume: %w", err)
	}
	// Not left to the closing of v: a process that is being started has a copy of v's handle for a moment, and the lock with it.
	return func() { _ = syscall.Flock(fd, syscall.LOCK_UN) }, nil
}

// ownedByOther returns who owns what info tells of, if that is not the user of this process.
func ownedByOther(info fs.FileInfo) (uid int, other bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) == os.Geteuid() {
		return 0, false
	}
	return int(stat.Uid), true
}

func deviceOf(info fs.FileInfo) uint64 {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return uint64(stat.Dev)
}
