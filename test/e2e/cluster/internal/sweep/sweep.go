//go:build integration && linux

// Package sweep removes what a cluster leaves behind: control groups with what still runs in them, mounts, data. It needs
// nothing but the cluster's folder, so it works when everything else of the cluster has been killed. A small process of its
// own, which every cluster has beside it, does so at that moment.
//
// It imports layout and cgroups. Who cleans a folder must hold its lock, which also keeps two clusters from one folder.
package sweep

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"keymount/test/e2e/cluster/internal/cgroups"
	"keymount/test/e2e/cluster/internal/layout"
)

// Command is the first argument with which the program of the cluster must call [Watch].
const Command = "sweep"

// bound is how long the kernel may take to end what was killed.
const bound = 20 * time.Second

// ErrLocked means that another process holds the folder.
var ErrLocked = errors.New("the folder is in use")

// Lock takes the folder for a cluster, or for cleaning. The lock holds until the last process that was given the file is
// gone. The folder must exist.
func Lock(dir layout.Dir) (*os.File, error) {
	file, err := os.Open(string(dir))
	if err != nil {
		return nil, fmt.Errorf("opening the cluster's folder: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return file, nil
	}
	file.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrLocked
	}
	return nil, fmt.Errorf("locking the cluster's folder: %w", err)
}

// AwaitLock is Lock that waits while the folder is in use, until ctx ends.
func AwaitLock(ctx context.Context, dir layout.Dir) (*os.File, error) {
	for {
		file, err := Lock(dir)
		if !errors.Is(err, ErrLocked) {
			return file, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %s: %w: %w", dir, err, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Clean removes what there is. It may be called on a folder of which nothing is left. In a folder that was never a cluster's it touches
// nothing.
func Clean(dir layout.Dir) error {
	groups, err := cgroups.Find()
	if err != nil {
		return err
	}
	if err := groups.Remove(dir.Cgroup(), bound); err != nil {
		return err
	}
	// After the control groups, which are the cluster's for sure: they end even where somebody took the mark away.
	if err := dir.Check(); err != nil {
		return err
	}
	if err := unmount(string(dir)); err != nil {
		return err
	}
	for _, path := range dir.Data() {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removing the cluster's data: %w", err)
		}
	}
	return nil
}

// unmount takes away what is mounted below the folder, in this mount namespace.
func unmount(dir string) error {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("looking for mounts: %w", err)
	}
	defer file.Close()
	var below []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		// The kernel writes what would break the line as an octal number.
		at := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		if strings.HasPrefix(at, dir+"/") {
			below = append(below, at)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("looking for mounts: %w", err)
	}
	for _, at := range slices.Backward(below) {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmounting %s: %w", at, err)
		}
	}
	return nil
}

// A Watcher is the process that cleans up after the calling one.
type Watcher struct {
	process *exec.Cmd
	alive   *os.File // closed by the end of the calling process, however it ends
}

// Start starts the watcher. It shares the lock, so that nobody takes the folder before it is clean.
func Start(dir layout.Dir, lock, log *os.File) (*Watcher, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting the sweeper: %w", err)
	}
	defer read.Close()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{"keymount-sweeper", Command, string(dir)},
		Stdin: read, Stdout: log, Stderr: log, ExtraFiles: []*os.File{lock},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}, // what is sent to the caller's session is not for it
	}
	if err := cmd.Start(); err != nil {
		write.Close()
		return nil, fmt.Errorf("starting the sweeper: %w", err)
	}
	return &Watcher{cmd, write}, nil
}

// PID is the watcher's.
func (w *Watcher) PID() int { return w.process.Process.Pid }

// Wait returns when the watcher has ended, which before Dismiss it should not.
func (w *Watcher) Wait() error { return w.process.Wait() }

// Dismiss lets the watcher clean up and end. Wait tells when it has.
func (w *Watcher) Dismiss() { w.alive.Close() }

// Watch is what the watcher does: it waits for the end of the process that started it, then cleans the folder.
func Watch(args []string) error {
	if len(args) != 1 {
		return errors.New("this command is for the cluster's own use")
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return fmt.Errorf("waiting for the end of the cluster: %w", err)
	}
	return Clean(layout.Dir(args[0]))
}
