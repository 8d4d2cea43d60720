package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"keymount/internal/azure"
	"keymount/internal/benchdoc"
	"keymount/internal/emulator"
	"keymount/internal/provider"
	"keymount/internal/volume"
)

// A result is one line of the table.
type result struct {
	work     string
	upstream string
	// requests are those of the worst round, of which vault is to the vault. They may be limit at most; those to the vault
	// must be reads, no more and no less.
	requests, vault, limit, reads int
	p50, p99                      time.Duration
	allocations, bytes            uint64 // of the median round, per mount; 0 where mounts run at once
	// wall is how long the mounts took together, 0 for single ones.
	wall time.Duration
}

// exceeded says which numbers of requests are not what was promised.
func exceeded(results []result) error {
	var all []error
	for _, r := range results {
		if r.requests > r.limit {
			all = append(all, fmt.Errorf("%s: %d requests, %d are the limit", r.work, r.requests, r.limit))
		}
		if r.vault != r.reads {
			all = append(all, fmt.Errorf("%s: %d requests to the vault, %d are needed", r.work, r.vault, r.reads))
		}
	}
	return errors.Join(all...)
}

// A node is what one node has: one provider, and a place for volumes.
type node struct {
	e        *emulated
	provider *azure.Provider
	volumes  string
	mounts   atomic.Int64 // so far
	close    func()
}

func newNode(e *emulated, shareFor time.Duration) (*node, error) {
	transport := e.transport()
	p, err := azure.New(azure.Config{Transport: transport, ConstructPEMChain: true, ShareFor: shareFor})
	if err != nil {
		return nil, err
	}
	volumes, err := os.MkdirTemp(volumesIn(), "keymount-bench")
	if err != nil {
		return nil, fmt.Errorf("making a folder for volumes: %w", err)
	}
	return &node{e: e, provider: p, volumes: volumes, close: func() {
		transport.CloseIdleConnections()
		os.RemoveAll(volumes)
	}}, nil
}

// volumesIn is memory where the system has such a folder, as volumes are in the product, else "" for the usual one.
func volumesIn() string {
	const memory = "/dev/shm"
	if info, err := os.Stat(memory); err == nil && info.IsDir() {
		return memory
	}
	return ""
}

// mount is a first mount of the class with all secrets, by a pod of an identity.
func (n *node) mount(ctx context.Context, who, pod int) error {
	var objects strings.Builder
	objects.WriteString("array:\n")
	for i := range secrets {
		fmt.Fprintf(&objects, "  - |\n    objectName: %s\n    objectType: secret\n    objectVersion: \"\"\n", secretName(i))
	}
	name := podName(who, pod)
	bundle, err := n.provider.Fetch(ctx, &provider.Request{
		Pod: provider.Pod{Namespace: "bench", Name: name, UID: name, ServiceAccount: account(who)},
		Tokens: map[string]provider.Token{audience: {Value: provider.Sensitive(n.e.Tokens[who][pod]),
			Expires: time.Now().Add(time.Hour), Proof: provider.ProvenByRequest}},
		Parameters: map[string]string{"keyvaultName": vaultName, "tenantID": tenant, "clientID": clientID(who),
			"objects": objects.String()},
		DefaultMode: 0o644,
	})
	if err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	target := filepath.Join(n.volumes, fmt.Sprint(n.mounts.Add(1)))
	if err := (volume.Folder{}).Mount(target); err != nil {
		return err
	}
	change, err := volume.Write(target, bundle.Files, volume.Options{})
	if err == nil && len(change.Added) != secrets {
		err = fmt.Errorf("%d files were written, want %d", len(change.Added), secrets)
	}
	return err
}

// measure does all work, that of one mount so many times. shareFor is how long reads are shared by mounts at once.
func measure(ctx context.Context, e *emulated, rounds int, shareFor time.Duration) ([]result, error) {
	var out []result
	for _, m := range []func() (result, error){
		func() (result, error) { return cold(ctx, e, rounds) },
		func() (result, error) { return warm(ctx, e, rounds) },
		func() (result, error) { return shared(ctx, e, rounds) },
		func() (result, error) { return together(ctx, e, 1, shareFor, max(1, rounds/10)) },
		func() (result, error) { return together(ctx, e, identities, shareFor, max(1, rounds/10)) },
	} {
		r, err := m()
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func cold(ctx context.Context, e *emulated, rounds int) (result, error) {
	r := result{work: "identity cold, connections too", upstream: "24 requests, about 650 ms", limit: secrets + 2, reads: secrets}
	return r, r.single(e, rounds, func(measured func(func() error) error) error {
		n, err := newNode(e, 0)
		if err != nil {
			return err
		}
		defer n.close()
		return measured(func() error { return n.mount(ctx, 0, 0) })
	})
}

func warm(ctx context.Context, e *emulated, rounds int) (result, error) {
	r := result{work: "identity warm, objects not yet read", upstream: "24 requests, about 650 ms", limit: secrets, reads: secrets}
	n, err := newNode(e, 0)
	if err != nil {
		return r, err
	}
	defer n.close()
	if err := n.mount(ctx, 0, 0); err != nil {
		return r, err
	}
	return r, r.single(e, rounds, func(measured func(func() error) error) error {
		return measured(func() error { return n.mount(ctx, 0, 0) })
	})
}

// shared is a mount by another pod of the same identity soon after the first. The reads are kept long enough for all
// rounds, which the product would not do.
func shared(ctx context.Context, e *emulated, rounds int) (result, error) {
	r := result{work: "reads shared", upstream: "24 requests, about 650 ms", limit: 0}
	n, err := newNode(e, time.Hour)
	if err != nil {
		return r, err
	}
	defer n.close()
	if err := n.mount(ctx, 0, 0); err != nil {
		return r, err
	}
	pod := 0
	return r, r.single(e, rounds, func(measured func(func() error) error) error {
		pod = (pod + 1) % pods
		return measured(func() error { return n.mount(ctx, 0, pod) })
	})
}

// together is 100 pods that start at the same moment, on a node that has just started.
func together(ctx context.Context, e *emulated, owners int, shareFor time.Duration, rounds int) (result, error) {
	r := result{work: fmt.Sprintf("%d mounts at once, %d identity", pods, owners), upstream: "2,400 requests", limit: owners * (secrets + 2), reads: owners * secrets}
	if owners > 1 {
		r.work = fmt.Sprintf("%d mounts at once, %d identities", pods, owners)
	}
	var times, walls []time.Duration
	for range rounds {
		n, err := newNode(e, shareFor)
		if err != nil {
			return r, err
		}
		if _, err := e.requests("reset"); err != nil {
			return r, err
		}
		took, errs := make([]time.Duration, pods), make([]error, pods)
		start := time.Now()
		var group sync.WaitGroup
		for pod := range pods {
			group.Go(func() {
				errs[pod] = n.mount(ctx, pod%owners, pod)
				took[pod] = time.Since(start)
			})
		}
		group.Wait()
		walls = append(walls, time.Since(start))
		times = append(times, took...)
		n.close()
		if err := errors.Join(errs...); err != nil {
			return r, err
		}
		if err := r.count(e); err != nil {
			return r, err
		}
	}
	r.p50, r.p99 = benchdoc.Percentile(times, 50), benchdoc.Percentile(times, 99)
	r.wall = benchdoc.Percentile(walls, 50)
	return r, nil
}

// single runs rounds of one mount each. round does what is not measured and calls measured with what is.
func (r *result) single(e *emulated, rounds int, round func(measured func(func() error) error) error) error {
	var times []time.Duration
	var allocations, bytes []uint64
	measured := func(mount func() error) error {
		if _, err := e.requests("reset"); err != nil {
			return err
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		err := mount()
		times = append(times, time.Since(start))
		runtime.ReadMemStats(&after)
		allocations = append(allocations, after.Mallocs-before.Mallocs)
		bytes = append(bytes, after.TotalAlloc-before.TotalAlloc)
		if err != nil {
			return err
		}
		return r.count(e)
	}
	for range rounds {
		if err := round(measured); err != nil {
			return err
		}
	}
	r.p50, r.p99 = benchdoc.Percentile(times, 50), benchdoc.Percentile(times, 99)
	r.allocations, r.bytes = benchdoc.Percentile(allocations, 50), benchdoc.Percentile(bytes, 50)
	return nil
}

// count keeps the worst round.
func (r *result) count(e *emulated) error {
	counts, err := e.requests("counts")
	if err != nil {
		return err
	}
	if all := counts.Total(); all >= r.requests {
		r.requests, r.vault = all, counts.Total(emulator.GroupVault)
	}
	return nil
}
