//go:build integration && linux

package rig

import (
	"context"

	"keymount/internal/emulator"
	"keymount/test/e2e/cluster/control"
)

// Fault does something to a component of a machine, such as control.Kill to kubelet of n1. What is paused or stopped goes on when the scenario ends.
func (s *Scenario) Fault(machine string, action control.Action, component string) {
	s.Helper()
	do := func(ctx context.Context, action control.Action) {
		ctx, cancel := context.WithTimeout(ctx, Bound)
		defer cancel()
		if err := s.Cluster.Do(ctx, machine, action, component); err != nil {
			s.Errorf("%s %s on %s: %v", action, component, machine, err)
		}
	}
	switch action {
	case control.Pause:
		s.Cleanup(func() { do(context.Background(), control.Resume) })
	case control.Stop:
		s.Cleanup(func() { do(context.Background(), control.Start) })
	}
	do(s.Context(), action)
}

// Reboot cuts a node's power and switches it on again.
func (s *Scenario) Reboot(node string) {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	if err := s.Cluster.Reboot(ctx, node); err != nil {
		s.Fatalf("rebooting %s: %v", node, err)
	}
}

// AwaitAPI waits until the API server serves again.
func (s *Scenario) AwaitAPI() {
	s.Helper()
	s.Await("the API server", func() error {
		ctx, cancel := s.bound()
		defer cancel()
		_, err := s.api.raw(ctx, "/readyz")
		return err
	})
}

// MayLogError allows error lines of pods of the system that contain all the texts and that a fault brings with it or not, as its moment falls. What must
// be logged is declared with ExpectError.
func (s *Scenario) MayLogError(texts ...string) {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	s.journal.declared = append(s.journal.declared, &declaration{by: s.Name(), texts: texts, used: true})
}

// Disturb has the scenario's vault do what a fault says, until heal is called or the scenario ends.
func (s *Scenario) Disturb(fault emulator.Fault) (heal func()) {
	s.Helper()
	fault.Host = s.Vault + ".vault.azure.net"
	id, err := s.Emulator.Server.SetFault(fault)
	if err != nil {
		s.Fatalf("disturbing vault %s: %v", s.Vault, err)
	}
	heal = func() { s.Emulator.Server.ClearFault(id) }
	s.Cleanup(heal)
	return heal
}
