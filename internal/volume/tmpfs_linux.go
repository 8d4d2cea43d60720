package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"keymount/internal/provider"
)

// Mount makes target, with what is missing above it, and mounts a tmpfs there. A target that has a tmpfs is left as it is, whoever mounted
// it: a volume of upstream's driver is taken over without a remount. A target that is a symbolic link, no folder, or
// has something else mounted is refused. On failure a folder that Mount made is removed.
func (t Tmpfs) Mount(target string) (err error) {
	target = filepath.Clean(target) // a slash at the end would follow a link
	made, err := makeTarget(target)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && made {
			os.Remove(target)
		}
	}()
	f, status, err := inspectMount(target)
	if err != nil {
		return err
	}
	defer f.Close()
	switch status.State {
	case Mounted:
		return nil
	case Foreign:
		return fmt.Errorf("mounting tmpfs: something else is mounted at %s; unmount it", target)
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if t.NoExec {
		flags |= unix.MS_NOEXEC
	}
	// The folder that was inspected, by its handle: target may have become a link meanwhile.
	if err := unix.Mount("tmpfs", handlePath(f), "tmpfs", flags, t.options()); err != nil {
		return fmt.Errorf("mounting tmpfs at %s: %w", target, hintMount(err))
	}
	return nil
}

func (t Tmpfs) options() string {
	size, inodes := t.Size, t.Inodes
	if size <= 0 {
		size = DefaultSize
	}
	if inodes <= 0 {
		inodes = DefaultInodes
	}
	options := []string{"mode=0755", "size=" + strconv.FormatInt(size, 10), "nr_inodes=" + strconv.FormatInt(inodes, 10)}
	if noswap() {
		options = append(options, "noswap")
	}
	return strings.Join(options, ",")
}

// noswap reports whether the kernel takes the option (Linux 6.4 and later), by asking it once, without a mount.
var noswap = sync.OnceValue(func() bool {
	fd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.FsconfigSetFlag(fd, "noswap") == nil
})

func hintMount(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w (mounting needs CAP_SYS_ADMIN: run the container privileged)", err)
	}
	return err
}

func makeTarget(target string) (made bool, err error) {
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return false, fmt.Errorf("making target: %w", err)
	}
	err = os.Mkdir(target, 0o750)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("making target: %w", err)
	}
	return true, nil
}

// Inspect says what is at target by asking the kernel about the folder itself. A symbolic link and anything else that is no
// folder are errors.
func (t Tmpfs) Inspect(target string) (Status, error) {
	target = filepath.Clean(target)
	f, status, err := inspectMount(target)
	if errors.Is(err, fs.ErrNotExist) {
		return Status{State: Absent}, nil
	}
	if err != nil {
		return Status{}, err
	}
	defer f.Close()
	if status.State == Mounted {
		if status.Generation, err = currentAt(f); err != nil {
			return Status{}, fmt.Errorf("inspecting target %s: %w", target, err)
		}
	}
	return status, nil
}

// Read returns those of the files named by paths that the volume at target holds; see readPaths. A target at which nothing is mounted, or no
// longer, is an error that matches ErrNotMounted.
func (t Tmpfs) Read(target string, paths []string, limit int) (map[string]provider.Contents, error) {
	target = filepath.Clean(target)
	f, status, err := inspectMount(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("reading %s: %w", target, ErrNotMounted)
	case err != nil:
		return nil, err
	}
	defer f.Close()
	switch status.State {
	case Mounted:
	case Foreign:
		return nil, fmt.Errorf("reading %s: something else than a tmpfs is mounted there; unmount it", target)
	default:
		return nil, fmt.Errorf("reading %s: %w", target, ErrNotMounted)
	}
	v, err := openVolume(target)
	if err != nil {
		return nil, err
	}
	defer v.close()
	// The mount that was inspected, not the folder below it or what was mounted there since.
	inspected, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("inspecting target: %w", err)
	}
	opened, err := v.dir.Stat()
	if err != nil {
		return nil, fmt.Errorf("inspecting target: %w", err)
	}
	if !os.SameFile(inspected, opened) {
		return nil, fmt.Errorf("reading %s: it was unmounted meanwhile: %w", target, ErrNotMounted)
	}
	return v.readPaths(paths, selection{limit: limit, device: status.Device})
}

// currentAt is volume.current with few system calls: every republish of kubelet asks.
func currentAt(f *os.File) (string, error) {
	fd := int(f.Fd())
	dangling := ""
	for {
		name, err := dataLinkAt(fd)
		if err != nil || name == dangling || !mayBeGeneration(name) {
			return "", err
		}
		var stat unix.Stat_t
		err = unix.Fstatat(fd, name, &stat, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case err == nil && stat.Mode&unix.S_IFMT == unix.S_IFDIR:
			return name, nil
		case err == nil, errors.Is(err, unix.ENAMETOOLONG):
			return "", nil
		case !errors.Is(err, unix.ENOENT):
			return "", err
		}
		dangling = name // see volume.current
	}
}

// dataLinkAt returns the target of ..data, "" if that is absent or no link.
func dataLinkAt(fd int) (string, error) {
	var buf [unix.NAME_MAX + 1]byte
	n, err := unix.Readlinkat(fd, dataLink, buf[:])
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return "", nil
	}
	return string(buf[:max(n, 0)]), err
}

// inspectMount opens target as a place, which has no effect on what is there, and says what is mounted on it.
func inspectMount(target string) (*os.File, Status, error) {
	fd, err := unix.Open(target, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		info, lerr := os.Lstat(target)
		if lerr != nil {
			return nil, Status{}, fmt.Errorf("inspecting target: %w", lerr)
		}
		return nil, Status{}, fmt.Errorf("inspecting target: %s is a %s, not a folder; it is left alone", target, kindOf(info.Mode()))
	}
	if err != nil {
		return nil, Status{}, &fs.PathError{Op: "inspecting target", Path: target, Err: err}
	}
	f := os.NewFile(uintptr(fd), target)
	status, err := mountStatus(f)
	if err != nil {
		f.Close()
		return nil, Status{}, fmt.Errorf("inspecting target %s: %w", target, err)
	}
	return f, status, nil
}

func mountStatus(f *os.File) (Status, error) {
	mounted, err := isMountRoot(f)
	if err != nil {
		return Status{}, err
	}
	var stat unix.Stat_t
	var statfs unix.Statfs_t
	err = unix.Fstat(int(f.Fd()), &stat)
	if err == nil && mounted {
		err = unix.Fstatfs(int(f.Fd()), &statfs)
	}
	switch {
	case err != nil && mounted:
		// A mount whose file system is gone (a FUSE server that died) answers nothing, but it is a mount.
		return Status{State: Foreign}, nil
	case err != nil:
		return Status{}, err
	case !mounted:
		return Status{State: NotMounted, Device: stat.Dev}, nil
	case statfs.Type == unix.TMPFS_MAGIC:
		return Status{State: Mounted, Device: stat.Dev, Bytes: int64(statfs.Blocks-statfs.Bfree) * statfs.Bsize}, nil
	}
	return Status{State: Foreign, Device: stat.Dev}, nil
}

// isMountRoot reports whether f is the folder on which something is mounted, seen from inside the mount.
func isMountRoot(f *os.File) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, 0, &st)
	if err == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
	}
	if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return false, fmt.Errorf("asking for mount: %w", err)
	}
	return isMountRootByTable(f)
}

// isMountRootByTable asks the mount table, for Linux before 5.8 and for sandboxes that filter statx.
func isMountRootByTable(f *os.File) (bool, error) {
	points, err := readMounts()
	if err != nil {
		return false, err
	}
	place, err := os.Readlink(handlePath(f))
	if err != nil {
		return false, fmt.Errorf("asking for mount: %w", err)
	}
	return slices.Contains(points, place), nil
}

func readMounts() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading mount table: %w", err)
	}
	defer f.Close()
	return parseMounts(f)
}
