//go:build integration && linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/rpc"
	"os"
	"path/filepath"

	"keymount/test/e2e/cluster/control"
	"keymount/test/e2e/cluster/internal/machine"
	"keymount/test/e2e/cluster/internal/network"
)

// serve answers the control socket until the process ends.
func (k *keeper) serve(ctx context.Context) error {
	if err := os.Remove(k.dir.Socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("making the control socket: %w", err)
	}
	folder, err := os.Open(string(k.dir))
	if err != nil {
		return fmt.Errorf("making the control socket: %w", err)
	}
	defer folder.Close()
	// A socket's path may have only 107 bytes; the folder's may be longer.
	short := fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(k.dir.Socket()))
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return fmt.Errorf("making the control socket: %w", err)
	}
	listener.SetUnlinkOnClose(false) // by then its name means another folder
	server := rpc.NewServer()
	if err := server.RegisterName("Cluster", &service{ctx, k}); err != nil {
		return fmt.Errorf("making the control socket: %w", err)
	}
	go server.Accept(listener)
	return nil
}

// A service is what a control.Client can ask for.
type service struct {
	ctx context.Context // the cluster's life: requests do not outlive it
	k   *keeper
}

// Status: see [control.Client].
func (s *service) Status(_ struct{}, out *control.Status) error {
	s.k.mu.Lock()
	*out = control.Status{Dir: string(s.k.dir), Keeper: os.Getpid(), Sweeper: s.k.sweeper, Ready: s.k.ready, APIServer: s.k.address}
	s.k.mu.Unlock()
	for _, m := range s.k.machines {
		out.Machines = append(out.Machines, m.status(s.ctx))
	}
	return nil
}

func (m *member) status(ctx context.Context) control.Machine {
	m.mu.Lock()
	out := control.Machine{Name: m.Spec.Name, Address: m.address, BootID: m.bootID, Boots: m.boots, Partitioned: m.partitioned}
	running := m.running
	m.mu.Unlock()
	if running == nil {
		return out
	}
	states, err := running.States(ctx)
	if err == nil {
		out.PID, out.Components = running.PID, states
	}
	return out
}

// Do: see [control.Client].
func (s *service) Do(o control.Order, _ *struct{}) error {
	m, running, err := s.running(o.Machine)
	if err != nil {
		return err
	}
	if err := running.Do(s.ctx, o.Action, o.Component); err != nil {
		return err
	}
	s.k.log.Info("done", "action", string(o.Action), "component", o.Component, "machine", m.Spec.Name)
	return nil
}

func (s *service) running(name string) (*member, *machine.Machine, error) {
	m, err := s.k.member(name)
	if err != nil {
		return nil, nil, err
	}
	running := m.current()
	if running == nil {
		return nil, nil, fmt.Errorf("machine %s has not been started yet", name)
	}
	return m, running, nil
}

// Reboot: see [control.Client].
func (s *service) Reboot(o control.Order, _ *struct{}) error {
	m, err := s.readyNode(o.Machine)
	if err != nil {
		return err
	}
	if err := s.k.reboot(s.ctx, m); err != nil {
		return fmt.Errorf("rebooting machine %s: %w", o.Machine, err)
	}
	s.k.log.Info("rebooted", "machine", o.Machine)
	return nil
}

// Partition: see [control.Client].
func (s *service) Partition(o control.Order, _ *struct{}) error {
	return s.cut(o.Machine, true, network.Partition)
}

// Heal: see [control.Client].
func (s *service) Heal(o control.Order, _ *struct{}) error {
	return s.cut(o.Machine, false, network.Heal)
}

func (s *service) cut(name string, cut bool, do func(ctx context.Context, cp, node int) error) error {
	m, err := s.readyNode(name)
	if err != nil {
		return err
	}
	m.turn.Lock()
	defer m.turn.Unlock()
	if err := do(s.ctx, s.k.machines[0].current().PID, m.index); err != nil {
		return err
	}
	m.mu.Lock()
	m.partitioned = cut
	m.mu.Unlock()
	s.k.log.Info("network changed", "machine", name, "partitioned", cut)
	return nil
}

// readyNode finds a node to do something to, which can be done only to one that was started as a whole.
func (s *service) readyNode(name string) (*member, error) {
	m, err := s.k.node(name)
	if err == nil && !s.isReady() {
		err = errors.New("the cluster is not ready yet")
	}
	return m, err
}

func (s *service) isReady() bool {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return s.k.ready
}

// Load: see [control.Client].
func (s *service) Load(files []string, _ *struct{}) error {
	if !s.isReady() {
		return errors.New("the cluster is not ready yet")
	}
	return s.k.loadAll(s.ctx, files)
}

// Down: see [control.Client]. It answers nothing: the connection ends with the process.
func (s *service) Down(struct{}, *struct{}) error {
	s.k.down(errDown)
	select {}
}

// Ended: see [control.Client].
func (s *service) Ended(struct{}, *struct{}) error { select {} }
