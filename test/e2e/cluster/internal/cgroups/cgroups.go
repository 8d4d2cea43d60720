//go:build integration && linux

// Package cgroups gives each machine of a cluster control groups of its own, in every hierarchy that is mounted, be it one
// of version 2, those of version 1, or both side by side; and it removes them, with whatever still runs in them.
//
// The groups stand at the top of each hierarchy, not below the caller's, whose limits are not the cluster's. The package
// imports nothing of the module. A Hierarchies value may be used concurrently; Join, Enter and Mount act on the calling
// process and belong to the start of a machine.
package cgroups

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const root = "/sys/fs/cgroup"

// A hierarchy is one mounted tree of control groups.
type hierarchy struct {
	mount   string // where
	v2      bool
	options string // version 1: the controllers or the name, as mount takes them
}

// Hierarchies are all that a machine has.
type Hierarchies []hierarchy

// Find reads what is mounted.
func Find() (Hierarchies, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("looking for control groups: %w", err)
	}
	defer file.Close()
	found, err := parse(file)
	if err != nil {
		return nil, fmt.Errorf("looking for control groups: %w", err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("looking for control groups: none are mounted below %s; a node's kubelet needs them", root)
	}
	return found, nil
}

func parse(mountinfo io.Reader) (Hierarchies, error) {
	var found Hierarchies
	seen := map[string]bool{}
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(tail) < 3 {
			continue
		}
		h := hierarchy{mount: fields[4], v2: tail[0] == "cgroup2"}
		if !h.v2 && tail[0] != "cgroup" || seen[h.mount] || h.mount != root && !strings.HasPrefix(h.mount, root+"/") {
			continue
		}
		if !h.v2 {
			h.options = controllers(tail[2])
		}
		seen[h.mount] = true
		found = append(found, h)
	}
	return found, lines.Err()
}

// controllers takes from the options of a mounted hierarchy those that say which it is.
func controllers(super string) string {
	var own []string
	for _, option := range strings.Split(super, ",") {
		switch option {
		case "rw", "ro", "clone_children", "xattr":
		default:
			if !strings.HasPrefix(option, "release_agent=") {
				own = append(own, option)
			}
		}
	}
	return strings.Join(own, ",")
}

// unified tells whether version 2 has the controllers, and so the rules of version 2 hold.
func (all Hierarchies) unified() bool { return len(all) == 1 && all[0].v2 }

// Create makes the group, and those above it, in every hierarchy.
func (all Hierarchies) Create(name string) error {
	for _, h := range all {
		at := h.mount
		for _, part := range strings.Split(name, "/") {
			if all.unified() {
				if err := delegate(at); err != nil {
					return err
				}
			}
			at = filepath.Join(at, part)
			if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("making a control group: %w", err)
			}
			// A new group of the cpuset controller takes no process until it is told its processors and memory.
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				if err := inherit(at, file); err != nil && !h.v2 {
					return err
				}
			}
		}
	}
	return nil
}

func inherit(group, file string) error {
	own, err := os.ReadFile(filepath.Join(group, file))
	if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(own)) != "" {
		return nil
	}
	parent, err := os.ReadFile(filepath.Join(filepath.Dir(group), file))
	if err == nil {
		err = os.WriteFile(filepath.Join(group, file), parent, 0)
	}
	if err != nil {
		return fmt.Errorf("giving a control group its %s: %w", file, err)
	}
	return nil
}

// delegate lets the groups below a group of version 2 use its controllers.
func delegate(group string) error {
	text, err := os.ReadFile(filepath.Join(group, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("reading the controllers of a control group: %w", err)
	}
	for _, controller := range strings.Fields(string(text)) {
		if err := os.WriteFile(filepath.Join(group, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			return fmt.Errorf("giving the controller %s to the groups below %s: %w", controller, group, err)
		}
	}
	return nil
}

// Join moves the calling process into the group.
func (all Hierarchies) Join(name string) error {
	for _, h := range all {
		if err := os.WriteFile(filepath.Join(h.mount, name, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("joining a control group: %w", err)
		}
	}
	return nil
}

// Mount mounts all hierarchies at the same places below dir, as the calling process' cgroup namespace shows them.
func (all Hierarchies) Mount(dir string) error {
	if !all.unified() {
		if err := unix.Mount("cgroup", filepath.Join(dir, root), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
			return fmt.Errorf("mounting the folder of control groups: %w", err)
		}
	}
	for _, h := range all {
		kind := "cgroup2"
		if !h.v2 {
			kind = "cgroup"
		} else if !all.unified() {
			continue // beside version 1 it has no controllers that a node uses, and runc would do without it anyway
		}
		at := filepath.Join(dir, h.mount)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return fmt.Errorf("making the place of a hierarchy of control groups: %w", err)
		}
		if err := unix.Mount(kind, at, kind, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, h.options); err != nil {
			return fmt.Errorf("mounting the control groups %s %s: %w", kind, h.options, err)
		}
		if err := alias(at, h.options); err != nil {
			return err
		}
	}
	return nil
}

// alias gives controllers that share a hierarchy their own names too, as every distribution has them.
func alias(at, options string) error {
	for _, controller := range strings.Split(options, ",") {
		if controller == "" || strings.HasPrefix(controller, "name=") || controller == filepath.Base(at) {
			continue
		}
		err := os.Symlink(filepath.Base(at), filepath.Join(filepath.Dir(at), controller))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("naming a controller: %w", err)
		}
	}
	return nil
}

// Settle prepares the top of a machine's own view, mounted below dir, for a kubelet: under version 2 a group that has groups
// below it may hold no process, so the calling process moves aside.
func (all Hierarchies) Settle(dir string) error {
	if !all.unified() {
		return nil
	}
	top := filepath.Join(dir, root)
	aside := filepath.Join(top, "init")
	if err := os.Mkdir(aside, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making a control group for the first process: %w", err)
	}
	if err := os.WriteFile(filepath.Join(aside, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("moving the first process to its control group: %w", err)
	}
	return delegate(top)
}

// Remove kills what runs in the group and below it, and removes it everywhere. It gives up after the bound: the kernel
// takes its time to end a process.
func (all Hierarchies) Remove(name string, bound time.Duration) error {
	deadline := time.Now().Add(bound)
	for {
		var errs []error
		for _, h := range all {
			errs = append(errs, remove(filepath.Join(h.mount, name)))
		}
		err := errors.Join(errs...)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond) // nothing tells when a group has become empty
	}
}

func remove(group string) error {
	entries, err := os.ReadDir(group)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading a control group: %w", err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := remove(filepath.Join(group, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := kill(group); err != nil {
		return err
	}
	if err := unix.Rmdir(group); err != nil && err != unix.ENOENT {
		return fmt.Errorf("removing the control group %s: %w", group, err)
	}
	return nil
}

func kill(group string) error {
	text, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("reading the processes of a control group: %w", err)
	}
	// A frozen process of version 1 does not even die; where there is no such file there is nothing to thaw.
	_ = os.WriteFile(filepath.Join(group, "freezer.state"), []byte("THAWED"), 0)
	for _, field := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL) // it may just have ended
		}
	}
	return nil
}
