//go:build integration && linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keymount/test/e2e/cluster/internal/config"
	"keymount/test/e2e/cluster/internal/enter"
	"keymount/test/e2e/cluster/internal/layout"
)

// manyRestarts is how often a component may end while a cluster starts. Some end once or twice, not finding what they need.
const manyRestarts = 10

// A hopeless error is one that no waiting will mend.
type hopeless struct{ error }

// poll asks until ask returns nil, and returns its last error when ctx ends first, or at once when that is hopeless.
func poll(ctx context.Context, what string, ask func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ask(one)
		cancel()
		if err == nil {
			return nil
		}
		if errors.As(err, new(hopeless)) {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; the last answer was: %w", what, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// awaitReady returns when pods can be scheduled to every node.
func (k *keeper) awaitReady(ctx context.Context) error {
	admin, err := clientcmd.BuildConfigFromFlags("", k.dir.Kubeconfig())
	if err != nil {
		return fmt.Errorf("reading the cluster's kubeconfig: %w", err)
	}
	admin.QPS = -1
	client, err := dynamic.NewForConfig(admin)
	if err != nil {
		return fmt.Errorf("making a client of the API server: %w", err)
	}
	if err := k.awaitAPIServer(ctx, admin); err != nil {
		return k.withLogs(ctx, err, layout.ControlPlane, "etcd", "kube-apiserver")
	}
	k.say("API server ready at https://" + k.address)
	for _, m := range k.machines[1:] {
		name := m.Spec.Name
		err := poll(ctx, "node "+name, func(ctx context.Context) error {
			if err := m.failing(ctx); err != nil {
				return err
			}
			object, err := client.Resource(corev1.SchemeGroupVersion.WithResource("nodes")).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			var node corev1.Node
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &node); err != nil {
				return err
			}
			return schedulable(&node)
		})
		if err != nil {
			return k.withLogs(ctx, err, name, "containerd", "kubelet")
		}
		k.say("node " + name + " ready")
	}
	k.mu.Lock()
	k.ready = true
	k.mu.Unlock()
	return nil
}

func (k *keeper) awaitAPIServer(ctx context.Context, admin *rest.Config) error {
	api, err := discovery.NewDiscoveryClientForConfig(admin)
	if err != nil {
		return fmt.Errorf("making a client of the API server: %w", err)
	}
	return poll(ctx, "the API server", func(ctx context.Context) error {
		// Asked first: the request can take all the time that there is for both.
		if err := k.machines[0].failing(ctx); err != nil {
			return err
		}
		return api.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// failing tells of a component that ends again and again, so that its log is read now and not when patience is over.
func (m *member) failing(ctx context.Context) error {
	states, err := m.current().States(ctx)
	if err != nil {
		return err
	}
	for _, state := range states {
		if state.Restarts > manyRestarts {
			return hopeless{fmt.Errorf("%s on %s ends again and again (%s)", state.Name, m.Spec.Name, state.Exit)}
		}
	}
	return nil
}

// schedulable tells why a node takes no pods yet.
func schedulable(node *corev1.Node) error {
	var ready *corev1.NodeCondition
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == corev1.NodeReady {
			ready = &node.Status.Conditions[i]
		}
	}
	switch {
	case ready == nil:
		return errors.New("kubelet has not told yet how it fares")
	case ready.Status != corev1.ConditionTrue:
		return fmt.Errorf("not ready: %s: %s", ready.Reason, ready.Message)
	case len(node.Spec.Taints) > 0:
		return fmt.Errorf("ready, but tainted: %s", node.Spec.Taints[0].ToString())
	}
	return nil
}

// withLogs adds the end of the log of the component that most likely is the cause: the one that ended most often, or the
// last of those named.
func (k *keeper) withLogs(ctx context.Context, err error, machine string, components ...string) error {
	if errors.Is(ctx.Err(), context.Canceled) { // nothing failed: the start was interrupted
		return err
	}
	worst, restarts := components[len(components)-1], 0
	if m, findErr := k.member(machine); findErr == nil {
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		states, _ := m.current().States(asking) // without them the guess remains
		for _, state := range states {
			for _, name := range components {
				if state.Name == name && state.Restarts > restarts {
					worst, restarts = name, state.Restarts
				}
			}
		}
	}
	path := k.dir.Log(machine, worst)
	return fmt.Errorf("%w\n%s restarted %d times; the end of %s:\n%s", err, worst, restarts, path, Tail(path))
}

// load imports image tars into a node, once its containerd serves.
func (k *keeper) load(ctx context.Context, m *member, files []string) error {
	pid := m.current().PID
	// The root of the process is the machine's: a socket in it can be reached from outside by its path.
	socket := fmt.Sprintf("/proc/%d/root%s", pid, config.ContainerdSocket)
	err := poll(ctx, "containerd of "+m.Spec.Name, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err == nil {
			conn.Close()
		}
		return err
	})
	if err != nil {
		return k.withLogs(ctx, err, m.Spec.Name, "containerd")
	}
	for _, file := range files {
		if err := load(ctx, pid, file); err != nil {
			return fmt.Errorf("importing %s into %s: %w", filepath.Base(file), m.Spec.Name, err)
		}
	}
	return nil
}

func load(ctx context.Context, pid int, file string) error {
	tar, err := os.Open(file)
	if err != nil {
		return err
	}
	defer tar.Close()
	return enter.Run(ctx, pid, enter.All, tar, config.Ctr, "--address", config.ContainerdSocket, "--namespace", "k8s.io",
		"images", "import", "--local", "--snapshotter", "overlayfs", "-")
}

// loadAll imports image tars into every node at once.
func (k *keeper) loadAll(ctx context.Context, files []string) error {
	errs := make([]error, len(k.machines))
	var wg sync.WaitGroup
	for i, m := range k.machines[1:] {
		wg.Go(func() { errs[i] = k.load(ctx, m, files) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
