//go:build integration && linux

package keeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"time"

	"keymount/test/e2e/cluster/internal/config"
	"keymount/test/e2e/cluster/internal/layout"
	"keymount/test/e2e/cluster/internal/machine"
	"keymount/test/e2e/cluster/internal/network"
)

// A member is a machine of the cluster through all its lives.
type member struct {
	config.Machine
	index   int // of a node, from 1; 0 is cp
	address string

	turn sync.Mutex // held by whoever starts or ends the machine

	mu          sync.Mutex
	running     *machine.Machine
	ended       bool // for good
	bootID      string
	boots       int
	partitioned bool
}

func (m *member) current() *machine.Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.running
}

// end ends the machine for good.
func (m *member) end() {
	m.mu.Lock()
	m.ended = true
	running := m.running
	m.mu.Unlock()
	if running != nil {
		running.Kill()
	}
}

// live starts a life of the machine, without network and components.
func (k *keeper) live(ctx context.Context, m *member) (err error) {
	group := k.dir.Cgroup() + "/" + m.Spec.Name
	if err := k.groups.Create(group); err != nil {
		return err
	}
	if err := os.MkdirAll(m.Spec.Root, 0o755); err != nil {
		return fmt.Errorf("making the place of the root of machine %s: %w", m.Spec.Name, err)
	}
	listener := k.listener
	if m.index > 0 {
		listener = nil
	}
	running, err := machine.New(m.Spec.Name, group, k.output, listener)
	if err != nil {
		return err
	}
	bootID := uuid()
	m.mu.Lock()
	m.running, m.bootID, m.partitioned = running, bootID, false
	m.boots++
	ended := m.ended
	m.mu.Unlock()
	if ended { // meanwhile, and nobody else would end this life
		running.Kill()
		return errors.New("the cluster is stopping")
	}
	spec := m.Spec
	spec.Sysctl = maps.Clone(spec.Sysctl)
	spec.Sysctl[config.BootID] = bootID
	if err := running.Boot(ctx, spec); err != nil {
		return fmt.Errorf("booting machine %s: %w; its words are in %s", m.Spec.Name, err, k.dir.KeeperLog())
	}
	return nil
}

// reboot ends a node's life and starts the next.
func (k *keeper) reboot(ctx context.Context, m *member) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	m.current().Kill()
	if err := k.groups.Remove(k.dir.Cgroup()+"/"+m.Spec.Name, 20*time.Second); err != nil {
		return err
	}
	return k.startNode(ctx, m)
}

// startNode starts a life of a node, with all that belongs to it.
func (k *keeper) startNode(ctx context.Context, m *member) error {
	if err := k.live(ctx, m); err != nil {
		return err
	}
	if err := network.Node(ctx, k.machines[0].current().PID, m.current().PID, m.index); err != nil {
		return fmt.Errorf("connecting machine %s: %w", m.Spec.Name, err)
	}
	return m.current().Run(ctx, m.Components)
}

// startMachines starts all, the nodes as soon as there is a network to connect them to.
func (k *keeper) startMachines(ctx context.Context) error {
	cp := k.machines[0]
	if err := k.live(ctx, cp); err != nil {
		return err
	}
	if err := network.ControlPlane(ctx, cp.current().PID); err != nil {
		return fmt.Errorf("making the network: %w", err)
	}
	if err := cp.current().Run(ctx, cp.Components); err != nil {
		return err
	}
	errs := make([]error, len(k.machines))
	var wg sync.WaitGroup
	for i, m := range k.machines[1:] {
		wg.Go(func() {
			m.turn.Lock()
			defer m.turn.Unlock()
			if errs[i] = k.startNode(ctx, m); errs[i] == nil {
				errs[i] = k.load(ctx, m, k.plan.Images)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	k.say(fmt.Sprintf("machines started: %s and %d nodes; images imported", layout.ControlPlane, k.plan.Nodes))
	return nil
}

func (k *keeper) member(name string) (*member, error) {
	for _, m := range k.machines {
		if m.Spec.Name == name {
			return m, nil
		}
	}
	return nil, fmt.Errorf("the cluster has no machine %q: it has %s and the nodes n1 up to n%d", name, layout.ControlPlane, k.plan.Nodes)
}

func (k *keeper) node(name string) (*member, error) {
	m, err := k.member(name)
	if err == nil && m.index == 0 {
		err = fmt.Errorf("machine %s is no node", name)
	}
	return m, err
}

// uuid makes an identifier of the form that the kernel gives to a boot.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
