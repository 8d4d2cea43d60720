package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxStacked is how many mounts on one target, or below it, are undone before Unmount gives up.
const maxStacked = 256

// Unmount removes whatever is mounted at target, however often, then what is in the folder, then the folder. Doing it again, or for
// a target that never existed, is fine. A mount that is in use is detached: it goes away with its last user. A
// target that is a symbolic link or no folder is refused and left alone.
//
// Files of the layout are removed before the mount is, because a copy of the mount in another namespace would keep them.
func (t Tmpfs) Unmount(target string) error {
	target = filepath.Clean(target)
	for range maxStacked {
		f, status, err := inspectMount(target)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		f.Close()
		switch status.State {
		case NotMounted:
			return removeTarget(target)
		case Mounted:
			eraseTarget(target)
		}
		if err := unmountOne(target); err != nil {
			return err
		}
	}
	return fmt.Errorf("unmounting %s: it is still mounted after %d unmounts", target, maxStacked)
}

// eraseTarget is best effort: what it cannot remove goes with the mount.
func eraseTarget(target string) {
	v, err := openVolume(target)
	if err != nil {
		return
	}
	defer v.close()
	_ = v.erase()
}

func unmountOne(target string) error {
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // somebody else was faster; the caller looks again
	}
	if err != nil {
		err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if err != nil {
		return fmt.Errorf("unmounting %s: %w", target, hintMount(err))
	}
	return nil
}

// removeTarget removes a folder on which nothing is mounted, with all that is in it; mounts below it are detached first.
func removeTarget(target string) error {
	if err := detachBelow(target); err != nil {
		return err
	}
	v, err := openVolume(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer v.close()
	all := func(string) bool { return true }
	for range maxStacked {
		if err := v.removeNames(all); err != nil {
			return fmt.Errorf("removing %s: %w", target, err)
		}
		err = unix.Rmdir(target)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.ENOTEMPTY) { // more names than one pass removes
			break
		}
	}
	return fmt.Errorf("removing folder %s: %w", target, err)
}

// detachBelow detaches what is mounted in the folder, the innermost first.
func detachBelow(target string) error {
	f, _, err := inspectMount(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	place, err := os.Readlink(handlePath(f)) // as the mount table has it: without links
	if err != nil {
		return fmt.Errorf("inspecting target: %w", err)
	}
	for range maxStacked {
		points, err := readMounts()
		if err != nil {
			return err
		}
		rel, found := "", false
		for _, point := range points { // later ones lie on earlier ones
			if below, ok := strings.CutPrefix(point, place+"/"); ok {
				rel, found = below, true
			}
		}
		if !found {
			return nil
		}
		if err := detach(f, rel); err != nil {
			return fmt.Errorf("detaching mount %s below %s: %w", quote(rel), target, err)
		}
	}
	return fmt.Errorf("detaching mounts below %s: there are more than %d", target, maxStacked)
}

// detach detaches the mount at rel below f. The way there must not lead through links, or a planted one would choose the mount.
func detach(f *os.File, rel string) error {
	fd, err := unix.Openat2(int(f.Fd()), rel, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return err
	}
	at := os.NewFile(uintptr(fd), rel)
	defer at.Close()
	return unix.Unmount(handlePath(at), unix.MNT_DETACH)
}
