//go:build integration && linux

// Package keeper holds a cluster: it starts the machines, waits until the nodes are ready, does what clients of its control
// socket ask, and ends everything. The process that calls Run is the cluster's life: when it ends, all of it does.
//
// It imports all other packages of the cluster, which do not know it. A process holds one cluster.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"keymount/test/e2e/cluster/internal/cgroups"
	"keymount/test/e2e/cluster/internal/config"
	"keymount/test/e2e/cluster/internal/layout"
	"keymount/test/e2e/cluster/internal/sweep"
)

// preferredPort is where the API server is reached in the outer machine, if it is free.
const preferredPort = 16443

// readyBound is the longest that a cluster may take to get ready; on two busy cores it takes some 15 s.
const readyBound = 3 * time.Minute

// A keeper is the state of the cluster.
type keeper struct {
	dir      layout.Dir
	plan     config.Plan
	log      *slog.Logger
	say      func(string) // tells who started the cluster what is done
	groups   cgroups.Hierarchies
	listener *os.File // in the outer machine, for cp
	address  string   // of it
	output   *os.File // of the machines' first processes

	machines []*member // cp first; the list does not change once the control socket is served
	down     context.CancelCauseFunc

	mu      sync.Mutex
	ready   bool
	sweeper int
}

// errDown ends a cluster by request.
var errDown = errors.New("the cluster is stopped by request")

// Run starts the cluster of the folder, calls ready when it is, and holds it until ctx ends or somebody asks for its end.
// Then, and when the start fails, it removes everything but the logs. lock is the folder's.
func Run(ctx context.Context, dir layout.Dir, lock *os.File, log *slog.Logger, say func(string), ready func(address string)) error {
	plan, err := config.ReadPlan(dir)
	if err != nil {
		return err
	}
	ctx, down := context.WithCancelCause(ctx)
	defer down(nil)
	k := &keeper{dir: dir, plan: plan, log: log, say: say, down: down, output: os.Stderr}
	sweeper, err := sweep.Start(dir, lock, os.Stderr)
	if err != nil {
		return err
	}
	k.sweeper = sweeper.PID()
	swept := make(chan error, 1)
	go func() { swept <- sweeper.Wait() }()

	err = k.start(ctx)
	if err == nil {
		ready(k.address)
		select {
		case <-ctx.Done():
			log.Info("stopping", "reason", context.Cause(ctx).Error())
		case <-k.machines[0].current().Done():
			err = errors.New("machine cp has ended, and with it the cluster")
		case swept1 := <-swept:
			err = fmt.Errorf("the sweeper has ended (%v), so nothing would clean up after the cluster: stopping it", swept1)
			swept <- nil
		}
	}
	k.stop()
	cleanErr := sweep.Clean(dir)
	sweeper.Dismiss()
	<-swept
	return errors.Join(err, cleanErr)
}

func (k *keeper) start(ctx context.Context) (err error) {
	if k.groups, err = cgroups.Find(); err != nil {
		return err
	}
	if err := k.listen(); err != nil {
		return err
	}
	if err := k.describe(); err != nil {
		return err
	}
	if err := k.serve(ctx); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, readyBound, fmt.Errorf("not ready within %s", readyBound))
	defer cancel()
	if err := k.startMachines(bounded); err != nil {
		return err
	}
	return k.awaitReady(bounded)
}

// listen takes the port at which the outer machine reaches the API server.
func (k *keeper) listen() error {
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", preferredPort))
	if err != nil { // most likely another cluster has it
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
	}
	if err != nil {
		return fmt.Errorf("taking a port for the API server: %w", err)
	}
	defer listener.Close() // the file is another descriptor of the same socket
	k.address = listener.Addr().String()
	if k.listener, err = listener.(*net.TCPListener).File(); err != nil {
		return fmt.Errorf("taking a port for the API server: %w", err)
	}
	return nil
}

// describe writes the cluster's configuration and makes the list of machines.
func (k *keeper) describe() error {
	builder, err := config.NewBuilder(k.dir, k.plan)
	if err != nil {
		return err
	}
	if err := builder.Users(k.address); err != nil {
		return err
	}
	if err := os.WriteFile(k.dir.Hosts(), nil, 0o644); err != nil {
		return fmt.Errorf("making the hosts file: %w", err)
	}
	cp, err := builder.ControlPlane()
	if err != nil {
		return err
	}
	k.machines = append(k.machines, &member{Machine: cp, address: layout.GatewayIP})
	for i := 1; i <= k.plan.Nodes; i++ {
		node, err := builder.Node(i)
		if err != nil {
			return err
		}
		k.machines = append(k.machines, &member{Machine: node, index: i, address: layout.NodeIP(i)})
	}
	return nil
}

// stop ends all machines at once.
func (k *keeper) stop() {
	var wg sync.WaitGroup
	for _, m := range k.machines {
		wg.Go(m.end)
	}
	wg.Wait()
}
