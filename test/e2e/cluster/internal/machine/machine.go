//go:build integration && linux

package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// InitCommand is the first argument with which the program of the cluster must call [Init].
const InitCommand = "machine-init"

// File descriptors of a machine's first process.
const (
	linkFD     = 3
	listenerFD = 4
)

// A Machine is a running machine.
type Machine struct {
	PID     int // of its first process, as seen outside
	process *os.Process
	client  *rpc.Client
	done    chan struct{}
}

// New starts a machine that has nothing yet but its namespaces and the control group. Output is where its first process
// writes; listener, which may be nil, is one of the outer machine's, for the component that asks for it.
func New(name, cgroup string, output, listener *os.File) (*Machine, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making the link to machine %s: %w", name, err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "link"), os.NewFile(uintptr(pair[1]), "link")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, fmt.Errorf("making the link to machine %s: %w", name, err)
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{"keymount-machine", InitCommand, name, cgroup},
		Env: []string{"PATH=" + os.Getenv("PATH")}, Stdout: output, Stderr: output,
		ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{
			Pdeathsig: syscall.SIGKILL, Setsid: true,
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		},
	}
	if listener != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, listener)
	}
	m := &Machine{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The death signal is bound to the thread that forked. It is never unlocked, so the runtime ends it with this goroutine.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is killed in the end, always
			close(m.done)
		}
	}()
	if err := <-started; err != nil {
		conn.Close()
		return nil, fmt.Errorf("starting machine %s: %w; it takes root, and a kernel with all kinds of namespaces", name, err)
	}
	m.PID, m.process = cmd.Process.Pid, cmd.Process
	m.client = rpc.NewClient(conn)
	return m, nil
}

// Boot gives the machine its root file system.
func (m *Machine) Boot(ctx context.Context, spec Spec) error {
	return m.call(ctx, "Boot", spec, &struct{}{})
}

// Run starts the components and keeps them running.
func (m *Machine) Run(ctx context.Context, components []Component) error {
	return m.call(ctx, "Run", components, &struct{}{})
}

// States tells how the components fare.
func (m *Machine) States(ctx context.Context) ([]State, error) {
	var states []State
	err := m.call(ctx, "States", struct{}{}, &states)
	return states, err
}

// Do does something to a component, and returns when it is done.
func (m *Machine) Do(ctx context.Context, action Action, component string) error {
	return m.call(ctx, "Do", Order{action, component}, &struct{}{})
}

// Done is closed when the machine has ended.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Kill ends the machine and all that runs in it, at once.
func (m *Machine) Kill() {
	_ = m.process.Kill() // fails only when it has ended
	<-m.done
	m.client.Close()
}

func (m *Machine) call(ctx context.Context, method string, args, reply any) error {
	call := m.client.Go("Machine."+method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-m.done:
		return errors.New("the machine has ended")
	case <-call.Done:
		return call.Error
	}
}
