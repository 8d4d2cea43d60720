//go:build integration && linux

package machine

import (
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"keymount/test/e2e/cluster/internal/cgroups"
)

const settled = "settled"

// Init is the first process of a machine; args are what follows [InitCommand]. It runs twice: first it joins the control
// group, which then is the top of a namespace of its own, and executes itself, since a namespace is one thread's; then it
// serves its starter's calls until the link breaks. It must be called by the main goroutine before any other is started.
func Init(args []string) error {
	// The death signal belongs to the main thread, which therefore executes.
	runtime.LockOSThread()
	if len(args) == 2 {
		return join(args[0], args[1])
	}
	if len(args) != 3 || args[2] != settled || os.Getpid() != 1 {
		return errors.New("this command is for the cluster's own use")
	}
	runtime.UnlockOSThread()
	unix.CloseOnExec(linkFD)
	unix.CloseOnExec(listenerFD)
	link := os.NewFile(linkFD, "link")
	conn, err := net.FileConn(link)
	if err != nil {
		return fmt.Errorf("taking the link to the starter: %w", err)
	}
	link.Close()
	server := rpc.NewServer()
	if err := server.RegisterName("Machine", newService(args[0])); err != nil {
		return err
	}
	server.ServeConn(conn) // until the starter is gone
	return nil
}

func join(name, cgroup string) error {
	groups, err := cgroups.Find()
	if err != nil {
		return err
	}
	if err := groups.Join(cgroup); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("making a namespace of control groups: %w", err)
	}
	args := []string{os.Args[0], InitCommand, name, cgroup, settled}
	return fmt.Errorf("executing the first process again: %w", unix.Exec(Self, args, os.Environ()))
}

// A service is what the starter can ask for.
type service struct {
	name   string
	reaper *reaper
	env    []string

	mu         sync.Mutex
	supervised map[string]*supervised
	order      []string
}

func newService(name string) *service {
	s := &service{name: name, reaper: newReaper(), supervised: map[string]*supervised{}}
	go s.reaper.run()
	return s
}

// Boot: see [Machine.Boot].
func (s *service) Boot(spec Spec, _ *struct{}) error {
	s.env = spec.Env
	for _, entry := range spec.Env {
		if path, ok := strings.CutPrefix(entry, "PATH="); ok {
			if err := os.Setenv("PATH", path); err != nil {
				return err
			}
		}
	}
	return boot(spec)
}

// Run: see [Machine.Run].
func (s *service) Run(components []Component, _ *struct{}) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range components {
		log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return fmt.Errorf("opening the log of %s: %w", c.Name, err)
		}
		one := newSupervised(c, log, s.env, s.reaper)
		s.supervised[c.Name] = one
		s.order = append(s.order, c.Name)
		go one.run()
	}
	return nil
}

// States: see [Machine.States].
func (s *service) States(_ struct{}, states *[]State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.order {
		*states = append(*states, s.supervised[name].current())
	}
	return nil
}

// An Order is the argument of Do.
type Order struct {
	Action    Action
	Component string
}

// Do: see [Machine.Do].
func (s *service) Do(o Order, _ *struct{}) error {
	s.mu.Lock()
	one, ok := s.supervised[o.Component]
	all := strings.Join(s.order, ", ")
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("machine %s has no component %q: it has %s", s.name, o.Component, all)
	}
	return one.do(o.Action)
}
