//go:build integration && linux

// Package control is how programs deal with a running cluster: what it consists of, what to do to it, running programs in
// its machines. The cluster's own commands use it, and so may tests.
//
// It imports layout, machine for the actions, and enter. A Client's methods may be called concurrently.
package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"

	"keymount/test/e2e/cluster/internal/config"
	"keymount/test/e2e/cluster/internal/enter"
	"keymount/test/e2e/cluster/internal/layout"
	"keymount/test/e2e/cluster/internal/machine"
)

// A Status is what a cluster consists of at a moment.
type Status struct {
	Dir       string
	Keeper    int    // process that holds the cluster
	Sweeper   int    // process that cleans up after it
	Ready     bool   // all nodes have been ready
	APIServer string // address in the outer machine
	Machines  []Machine
}

// A Machine is a machine of the cluster.
type Machine struct {
	Name        string
	Address     string
	PID         int // of its first process, in the outer machine; 0 when it has ended
	BootID      string
	Boots       int
	Partitioned bool
	Components  []Component
}

// A Component is a program that a machine keeps running.
type Component = machine.State

// An Action is what can be done to a component.
type Action = machine.Action

// The actions.
const (
	Kill   = machine.Kill   // end it at once; it is restarted after 0.3 s
	Stop   = machine.Stop   // end it and keep it away
	Start  = machine.Start  // let it run again
	Pause  = machine.Pause  // it is there and does not move
	Resume = machine.Resume // it moves again
)

// MachinePath is PATH in a machine: the cluster's programs, then the outer machine's.
const MachinePath = config.MachinePath

// Machine finds a machine by its name.
func (s Status) Machine(name string) (Machine, error) {
	for _, m := range s.Machines {
		if m.Name == name {
			return m, nil
		}
	}
	return Machine{}, fmt.Errorf("the cluster has no machine %q", name)
}

// Component finds a component by its name.
func (m Machine) Component(name string) (Component, error) {
	for _, c := range m.Components {
		if c.Name == name {
			return c, nil
		}
	}
	return Component{}, fmt.Errorf("machine %s has no component %q", m.Name, name)
}

// ErrNotRunning means that no cluster runs in the folder.
var ErrNotRunning = errors.New("no cluster runs")

// A Client talks to the process that holds a cluster.
type Client struct {
	rpc    *rpc.Client
	dir    layout.Dir
	keeper int
}

// Dial connects to the cluster of the folder. The client must be closed.
func Dial(folder string) (*Client, error) {
	dir, err := layout.Find(folder)
	if err != nil {
		return nil, err
	}
	conn, err := dial(dir.Socket())
	if err != nil {
		return nil, fmt.Errorf("connecting to the cluster of %s: %w (%w)", dir, ErrNotRunning, err)
	}
	keeper, err := peer(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Client{rpc.NewClient(conn), dir, keeper}, nil
}

// dial goes through the folder's file descriptor: a socket's path may have only 107 bytes.
func dial(path string) (*net.UnixConn, error) {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(path))
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: short, Net: "unix"})
}

// Close ends the connection.
func (c *Client) Close() { c.rpc.Close() }

// Keeper is the process that holds the cluster, by the kernel's word.
func (c *Client) Keeper() int { return c.keeper }

// Kubeconfig is the path of an administrator's kubeconfig, for the outer machine.
func (c *Client) Kubeconfig() string { return c.dir.Kubeconfig() }

// KubeconfigInside is the same for processes in the network namespace of cp.
func (c *Client) KubeconfigInside() string { return c.dir.KubeconfigInside() }

// Hosts is the path of the file that the cluster's name server answers from.
func (c *Client) Hosts() string { return c.dir.Hosts() }

// AuditLog is the path of kube-apiserver's audit log.
func (c *Client) AuditLog() string { return c.dir.AuditLog() }

// Log is the path of a component's log.
func (c *Client) Log(machine, component string) string { return c.dir.Log(machine, component) }

// PodLogs is the folder of what the pods of a node wrote: NAMESPACE_POD_UID/CONTAINER/N.log.
func (c *Client) PodLogs(node string) string { return c.dir.Path("logs", node, "pods") }

// Status tells what the cluster consists of.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.call(ctx, "Status", struct{}{}, &s)
	return s, err
}

// An Order is what a request names.
type Order struct {
	Machine, Component string
	Action             Action
}

// Do does something to a component of a machine, and returns when it is done.
func (c *Client) Do(ctx context.Context, machine string, action Action, component string) error {
	return c.call(ctx, "Do", Order{machine, component, action}, &struct{}{})
}

// Reboot ends a node at once, as a cut of its power would, and starts it again with its disk. It returns when its components
// have been started, and does not wait until it is ready.
func (c *Client) Reboot(ctx context.Context, node string) error {
	return c.call(ctx, "Reboot", Order{Machine: node}, &struct{}{})
}

// Partition cuts a node off the network; Heal joins it again.
func (c *Client) Partition(ctx context.Context, node string) error {
	return c.call(ctx, "Partition", Order{Machine: node}, &struct{}{})
}

// Heal: see Partition.
func (c *Client) Heal(ctx context.Context, node string) error {
	return c.call(ctx, "Heal", Order{Machine: node}, &struct{}{})
}

// Load imports image tars into every node.
func (c *Client) Load(ctx context.Context, files ...string) error {
	absolute := make([]string, len(files))
	for i, file := range files {
		path, err := filepath.Abs(file)
		if err != nil {
			return fmt.Errorf("loading an image: %w", err)
		}
		absolute[i] = path
	}
	return c.call(ctx, "Load", absolute, &struct{}{})
}

// Down asks the cluster to stop. It returns when the cluster has ended or the connection broke, which is the same.
func (c *Client) Down(ctx context.Context) error {
	err := c.call(ctx, "Down", struct{}{}, &struct{}{})
	if ctx.Err() != nil {
		return err
	}
	return nil // no answer comes from a process that has ended
}

// Ended returns when the cluster has.
func (c *Client) Ended(ctx context.Context) {
	_ = c.call(ctx, "Ended", struct{}{}, &struct{}{}) // it is never answered; the connection breaks
}

// Run runs a command in a machine: in its network, or with all in everything that the machine has. It returns how the
// command ended; with the cluster it is killed.
func (c *Client) Run(ctx context.Context, machine string, all bool, cmd *exec.Cmd, started func(*os.Process)) error {
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	m, err := status.Machine(machine)
	if err != nil {
		return err
	}
	if m.PID == 0 {
		return fmt.Errorf("machine %s has ended", machine)
	}
	namespaces := enter.Network
	if all {
		namespaces = enter.All
	}
	wait, err := enter.Start(m.PID, namespaces, cmd)
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		c.Ended(running)
		_ = cmd.Process.Kill() // after its end this does nothing
	}()
	if started != nil {
		started(cmd.Process)
	}
	return wait()
}

func (c *Client) call(ctx context.Context, method string, args, reply any) error {
	call := c.rpc.Go("Cluster."+method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-call.Done:
		return call.Error
	}
}
