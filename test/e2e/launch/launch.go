//go:build integration && linux

// Package launch runs a small program of the test cluster as a process of its own, for the program's own tests. The program
// is found in PATH, where testscript.Main puts the test binary under the program's name. A Process is for one test.
package launch

import (
	"bytes"
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// ends bounds how long a program may take to end.
const ends = 20 * time.Second

// A Process is a running program.
type Process struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	done   chan struct{} // closed when it has ended
}

// Start runs the program; it is killed at the end of the test if it still runs then.
func Start(t *testing.T, name string, args ...string) *Process {
	t.Helper()
	p := &Process{cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stderr = &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // its outcome is in ProcessState
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
	})
	return p
}

// Term sends SIGTERM.
func (p *Process) Term(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// Wait waits for the end and returns the exit code and what was said on standard error.
func (p *Process) Wait(t *testing.T) (int, string) {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), p.stderr.String()
	case <-time.After(ends):
		t.Fatalf("%s does not end", p.cmd.Path)
		return 0, ""
	}
}

// Running says, as an error, that the program has ended before its time.
func (p *Process) Running() error {
	select {
	case <-p.done:
		return errors.New("the program has ended: " + p.cmd.ProcessState.String() + ": " + p.stderr.String())
	default:
		return nil
	}
}
