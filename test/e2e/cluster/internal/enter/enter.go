//go:build integration && linux

// Package enter runs programs in the namespaces of another process: a tool in a machine's network, or in all that a machine
// has. It does what nsenter does, but the program is a child of the caller, so signals, exit codes and death signals hold.
//
// It imports nothing of the module. Its functions may be called concurrently.
package enter

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Which namespaces.
const (
	Network = unix.CLONE_NEWNET
	All     = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP
)

// Start starts the command in namespaces of the process, and returns a function that waits for its end. The command is
// killed with the calling process.
func Start(pid, namespaces int, cmd *exec.Cmd) (wait func() error, err error) {
	dieWithCaller(namespaces, cmd)
	started, ended := make(chan error, 1), make(chan error, 1)
	go away(func() {
		err := join(pid, namespaces)
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	})
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s in the namespaces of process %d: %w", cmd.Path, pid, err)
	}
	return func() error { return <-ended }, nil
}

func dieWithCaller(namespaces int, cmd *exec.Cmd) {
	if namespaces&unix.CLONE_NEWPID == 0 {
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		return
	}
	// From inside another process namespace the caller is not seen, and package syscall takes it for dead. setpriv also looks
	// the program up where it runs.
	cmd.Args = append([]string{"setpriv", "--pdeathsig", "KILL", "--"}, cmd.Args...)
	cmd.Path, cmd.Err = "/usr/bin/setpriv", nil
}

// away calls do on a thread that nobody else uses after it, and that is not the process' main thread, whose namespaces are
// what the process shows as its own.
func away(do func()) {
	// Never unlocked: the runtime ends the thread, and what it entered, with this goroutine. It lives as long as the child,
	// whose death signal is bound to it.
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		do()
		return
	}
	elsewhere := make(chan struct{})
	go away(func() { // not on this thread, which is held until then
		close(elsewhere)
		do()
	})
	<-elsewhere
	runtime.UnlockOSThread()
}

// join moves the calling thread. Children go into the process namespace, the thread itself stays in its own.
func join(pid, namespaces int) error {
	if namespaces&unix.CLONE_NEWNS != 0 {
		// Threads share their root and working folder, which a mount namespace cannot change for one of them.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setns(fd, namespaces)
}

// Run runs a program in namespaces of the process with that input. What it printed is part of the error.
func Run(ctx context.Context, pid, namespaces int, stdin io.Reader, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var output bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &output, &output
	wait, err := Start(pid, namespaces, cmd)
	if err != nil {
		return err
	}
	if err := wait(); err != nil {
		return fmt.Errorf("running %s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(output.String()))
	}
	return nil
}
