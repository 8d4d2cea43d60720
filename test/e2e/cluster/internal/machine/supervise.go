//go:build integration && linux

package machine

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stopGrace is how long a component that is told to stop may take before it is killed.
const stopGrace = 5 * time.Second

// A supervised is a component and the loop that keeps it running.
type supervised struct {
	Component
	log    *os.File
	env    []string
	reaper *reaper

	mu      sync.Mutex
	changed *sync.Cond // on every change of state
	state   State
}

func newSupervised(c Component, log *os.File, env []string, r *reaper) *supervised {
	s := &supervised{Component: c, log: log, env: env, reaper: r, state: State{Name: c.Name}}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *supervised) run() {
	for {
		s.await()
		if s.After != "" && !reachable(s.After) {
			time.Sleep(20 * time.Millisecond) // nothing tells when another program listens
			continue
		}
		if ended, err := s.start(); err != nil {
			s.say("starting: %v", err)
			s.update(func(state *State) { state.Exit = err.Error() })
		} else {
			s.end(<-ended)
		}
		time.Sleep(RestartDelay) // a program that cannot start must not use up the machine
	}
}

func (s *supervised) end(status syscall.WaitStatus) {
	s.update(func(state *State) {
		state.PID, state.Paused, state.Exit = 0, false, describe(status)
		if !state.Stopped {
			state.Restarts++
		}
	})
	s.say("ended: %s", describe(status))
}

// await returns when the component is to run.
func (s *supervised) await() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.state.Stopped {
		s.changed.Wait()
	}
}

func (s *supervised) start() (<-chan syscall.WaitStatus, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	files := []uintptr{null.Fd(), s.log.Fd(), s.log.Fd()}
	if s.Listener {
		files = append(files, listenerFD)
	}
	pid, ended, err := s.reaper.start(s.Args, &syscall.ProcAttr{Dir: "/", Env: s.env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err == nil {
		s.update(func(state *State) { state.PID = pid })
	}
	return ended, err
}

func (s *supervised) do(action Action) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.PID == 0 && action != Start && action != Stop {
		return fmt.Errorf("%s does not run, so one cannot %s it", s.Name, action)
	}
	switch pid := s.state.PID; action {
	case Kill:
		s.reaper.signal(pid, syscall.SIGKILL)
		s.awaitEnd(pid)
	case Stop:
		s.state.Stopped = true
		s.reaper.signal(pid, syscall.SIGTERM)
		s.reaper.signal(pid, syscall.SIGCONT) // a paused one must move to end
		kill := time.AfterFunc(stopGrace, func() { s.reaper.signal(pid, syscall.SIGKILL) })
		s.awaitEnd(pid)
		kill.Stop()
	case Start:
		s.state.Stopped = false
		s.changed.Broadcast()
	case Pause, Resume:
		s.state.Paused = action == Pause
		s.reaper.signal(pid, map[Action]syscall.Signal{Pause: syscall.SIGSTOP, Resume: syscall.SIGCONT}[action])
	default:
		return fmt.Errorf("there is no action %q", action)
	}
	return nil
}

// awaitEnd returns when the process is no longer there; the lock is held, and given up meanwhile.
func (s *supervised) awaitEnd(pid int) {
	for pid != 0 && s.state.PID == pid {
		s.changed.Wait()
	}
}

func (s *supervised) update(change func(*State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.state)
	s.changed.Broadcast()
}

func (s *supervised) current() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// say adds a line to the component's log.
func (s *supervised) say(format string, args ...any) {
	fmt.Fprintf(s.log, "%s [machine] %s %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), s.Name, fmt.Sprintf(format, args...))
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("exit code %d", status.ExitStatus())
}

// reachable tells whether something listens at an address of the form that [Component] has.
func reachable(address string) bool {
	network, address, _ := strings.Cut(address, ":")
	conn, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
