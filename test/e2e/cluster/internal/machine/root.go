//go:build integration && linux

package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"keymount/test/e2e/cluster/internal/cgroups"
)

// system lists what a machine takes from the outer one's root, to read only: programs, their libraries and what these look
// up. All else in it is its own, so it leaves nothing in the outer machine's folders.
var system = [...]string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf",
	"/etc/ld.so.conf.d", "/etc/nsswitch.conf", "/etc/os-release", "/etc/passwd", "/etc/group", "/etc/protocols",
	"/etc/services", "/etc/ssl", "/etc/localtime",
}

// boot makes the root file system of the calling process' mount namespace and moves into it.
func boot(spec Spec) error {
	if err := unix.Sethostname([]byte(spec.Name)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	// From here on nothing that is mounted shows outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("parting from the outer machine's mounts: %w", err)
	}
	if err := mount("tmpfs", spec.Root, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	b := builder{root: spec.Root}
	for _, step := range []func(Spec) error{b.system, b.kernel, b.binds, b.files} {
		if err := step(spec); err != nil {
			return err
		}
	}
	if err := b.pivot(); err != nil {
		return err
	}
	if err := sysctls(spec.Sysctl); err != nil {
		return err
	}
	// Mounts made by the CSI driver in its container must reach the node and other containers, as on every node.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("sharing the machine's mounts with its containers: %w", err)
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
}

// A builder fills a root file system before it is moved into.
type builder struct{ root string }

func (b builder) at(path string) string { return filepath.Join(b.root, path) }

func (b builder) system(Spec) error {
	for _, path := range system {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("looking at %s: %w", path, err)
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			if err := b.bind(Bind{path, path, true}); err != nil {
				return err
			}
			continue
		}
		target, err := os.Readlink(path)
		if err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		if err := b.link(path, target); err != nil {
			return err
		}
	}
	return nil
}

func (b builder) kernel(Spec) error {
	for _, dir := range []string{"/proc", "/sys", "/run", "/tmp", "/var/tmp", "/root"} {
		if err := os.MkdirAll(b.at(dir), 0o755); err != nil {
			return fmt.Errorf("making a folder of the machine: %w", err)
		}
	}
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err := errors.Join(
		mount("proc", b.at("/proc"), "proc", quiet, ""),
		mount("sysfs", b.at("/sys"), "sysfs", quiet, ""),
		mount("tmpfs", b.at("/run"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"),
		mount("tmpfs", b.at("/tmp"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"),
		b.bind(Bind{"/dev", "/dev", false}),
		os.Chmod(b.at("/var/tmp"), 0o1777),
		b.link("/var/run", "/run"),
		b.link("/etc/mtab", "/proc/self/mounts"),
	)
	if err != nil {
		return err
	}
	groups, err := cgroups.Find()
	if err != nil {
		return err
	}
	if err := groups.Mount(b.root); err != nil {
		return err
	}
	return groups.Settle(b.root)
}

func (b builder) binds(spec Spec) error {
	for _, path := range spec.Share {
		if err := b.bind(Bind{path, path, false}); err != nil {
			return err
		}
	}
	for _, bind := range spec.Binds {
		if err := b.bind(bind); err != nil {
			return err
		}
	}
	return nil
}

func (b builder) files(spec Spec) error {
	for path, text := range spec.Files {
		if err := os.MkdirAll(filepath.Dir(b.at(path)), 0o755); err != nil {
			return fmt.Errorf("making the folder of %s: %w", path, err)
		}
		if err := os.WriteFile(b.at(path), []byte(text), 0o644); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	for path, target := range spec.Links {
		if err := b.link(path, target); err != nil {
			return err
		}
	}
	return nil
}

func (b builder) link(path, target string) error {
	if err := os.MkdirAll(filepath.Dir(b.at(path)), 0o755); err != nil {
		return fmt.Errorf("making the folder of %s: %w", path, err)
	}
	return os.Symlink(target, b.at(path))
}

func (b builder) bind(bind Bind) error {
	info, err := os.Stat(bind.Source)
	if err != nil {
		return fmt.Errorf("showing a file to the machine: %w", err)
	}
	target := b.at(bind.Target)
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		var file *os.File
		if file, err = os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o644); err == nil {
			err = file.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("making the place of %s: %w", bind.Target, err)
	}
	flags := uintptr(unix.MS_BIND)
	if bind.Source == bind.Target && !strings.HasPrefix(b.root, bind.Source+"/") {
		flags |= unix.MS_REC // but not where that would show the root file system in itself
	}
	if err := mount(bind.Source, target, "", flags, ""); err != nil {
		return err
	}
	if !bind.ReadOnly {
		return nil
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_RECURSIVE, attr); err != nil {
		return fmt.Errorf("making %s read-only: %w", bind.Target, err)
	}
	return nil
}

// pivot makes the new root file system the root, and lets go of the old one.
func (b builder) pivot() error {
	for _, step := range []func() error{
		func() error { return os.Chdir(b.root) },
		func() error { return unix.PivotRoot(".", ".") }, // the old root is now mounted over the new one
		func() error { return unix.Unmount(".", unix.MNT_DETACH) },
		func() error { return os.Chdir("/") },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("moving into the machine's root file system: %w", err)
		}
	}
	return nil
}

// SysctlFile is where in a machine the value of a sysctl of its own stands.
func SysctlFile(name string) string {
	return filepath.Join("/run/sysctl", strings.ReplaceAll(name, "/", "."))
}

// sysctls binds files over those of the kernel, so that what a kubelet sets for the whole machine stays inside.
func sysctls(values map[string]string) error {
	for name, value := range values {
		file := SysctlFile(name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("making the folder of sysctls: %w", err)
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return fmt.Errorf("writing a sysctl: %w", err)
		}
		if err := mount(file, "/proc/sys/"+name, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		what := slices.DeleteFunc([]string{kind, source}, func(s string) bool { return s == "" })
		return fmt.Errorf("mounting %s on %s: %w", strings.Join(what, " "), target, err)
	}
	return nil
}
