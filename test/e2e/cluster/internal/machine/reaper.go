//go:build integration && linux

package machine

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// A reaper takes the exit codes of all that ends in the machine: components, and what programs leave behind, such as
// containers whose shim ended.
type reaper struct {
	mu       sync.Mutex
	children map[int]chan syscall.WaitStatus
	signals  chan os.Signal
}

func newReaper() *reaper {
	r := &reaper{children: map[int]chan syscall.WaitStatus{}, signals: make(chan os.Signal, 1)}
	signal.Notify(r.signals, syscall.SIGCHLD)
	return r
}

// start starts a program; its end is sent on the channel.
func (r *reaper) start(args []string, attr *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	r.mu.Lock() // until the child is known, nobody may take its exit code
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(args[0], args, attr)
	if err != nil {
		return 0, nil, err
	}
	ended := make(chan syscall.WaitStatus, 1)
	r.children[pid] = ended
	return pid, ended, nil
}

// signal sends a signal to a component that has not been reaped.
func (r *reaper) signal(pid int, sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.children[pid]; ok {
		_ = syscall.Kill(pid, sig)
	}
}

func (r *reaper) run() {
	for range r.signals {
		for r.reap() {
		}
	}
}

func (r *reaper) reap() (more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
	if err == syscall.EINTR {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	if ended, ok := r.children[pid]; ok {
		delete(r.children, pid)
		ended <- status
	}
	return true
}
