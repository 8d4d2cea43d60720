//go:build integration && linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"keymount/test/e2e/cluster/control"
	"keymount/test/e2e/rig"
)

// inner builds what is missing, runs the scenarios in a cluster, and stops it unless it is to be kept.
func inner(ctx context.Context, o options, p paths) (err error) {
	if err := errors.Join(os.RemoveAll(p.logs), os.RemoveAll(p.temporary()), os.MkdirAll(p.logs, 0o755), os.MkdirAll(p.bin, 0o755), os.MkdirAll(p.temporary(), 0o700)); err != nil {
		return err
	}
	if err := p.ready(ctx); err != nil {
		return err
	}
	c := &clusterRun{p: p, o: o}
	defer func() {
		if !o.keep || c.client == nil {
			err = errors.Join(err, c.stop())
		}
	}()
	// The cluster starts while the rest is still being compiled.
	var images []string
	work, all := errgroup.WithContext(ctx)
	work.Go(func() error { return c.start(all) })
	work.Go(func() (err error) { images, err = p.buildAll(all); return err })
	if err := work.Wait(); err != nil {
		return err
	}
	if err := step("loading images", func() error { return c.client.Load(ctx, images...) }); err != nil {
		return err
	}
	return c.run(ctx)
}

// A clusterRun is the cluster and what runs in it.
type clusterRun struct {
	p      paths
	o      options
	client *control.Client
	// end tells the process that holds the cluster to stop, if it is a child; ended is closed when it has.
	end   func()
	ended chan struct{}
}

// start starts a cluster, or takes one that was kept.
func (c *clusterRun) start(ctx context.Context) error {
	if err := c.p.ensureBinaries(ctx); err != nil {
		return err
	}
	client, err := control.Dial(c.p.cluster)
	if err != nil {
		if err := c.up(ctx); err != nil {
			return err
		}
		if client, err = control.Dial(c.p.cluster); err != nil {
			return err
		}
	}
	c.client = client
	status, err := client.Status(ctx)
	if err != nil {
		return err
	}
	for _, m := range status.Machines {
		if groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", m.PID)); err == nil {
			return os.WriteFile(c.p.sign(), []byte(clusterGroup(string(groups))), 0o644)
		}
	}
	return errors.New("the cluster has no machine that runs")
}

// up starts a cluster and returns when it is ready. One that is not to be kept is a child, and ends with this process, whatever ends it.
func (c *clusterRun) up(ctx context.Context) error {
	return step("cluster", func() error {
		args := []string{"up", "--dir", c.p.cluster, "--nodes", fmt.Sprint(c.o.nodes)}
		if c.o.keep {
			return c.p.command(ctx, "cluster", filepath.Join(c.p.bin, "cluster"), args...)
		}
		c.ended = make(chan struct{})
		holding, stop := context.WithCancel(context.Background())
		c.end = stop
		var failure error
		go func() {
			defer close(c.ended)
			failure = c.p.command(holding, "cluster", filepath.Join(c.p.bin, "cluster"), append(args, "--foreground")...)
		}()
		return c.awaitReady(ctx, &failure)
	})
}

// awaitReady asks until the cluster that a child holds is ready.
func (c *clusterRun) awaitReady(ctx context.Context, failure *error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("the cluster was not ready within two minutes"))
	defer cancel()
	for {
		if client, err := control.Dial(c.p.cluster); err == nil {
			status, err := client.Status(ctx)
			client.Close()
			if err == nil && status.Ready {
				return nil
			}
		}
		select {
		case <-c.ended:
			return fmt.Errorf("the cluster ended: %w", *failure)
		case <-ctx.Done():
			return fmt.Errorf("%w; the end of its log:\n%s", context.Cause(ctx), tail(filepath.Join(c.p.logs, "cluster.log")))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop stops the cluster, one that was kept from an earlier run too.
func (c *clusterRun) stop() error {
	return step("stopping the cluster", func() error {
		if c.client != nil {
			c.client.Close()
		}
		if c.end != nil {
			c.end()
			<-c.ended
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return c.p.down(ctx)
	})
}

// run runs the scenarios in the network of the control plane and prints what became of them.
func (c *clusterRun) run(ctx context.Context) error {
	build, err := c.p.build()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.timeout+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(c.p.bin, "e2e.test"), "-test.v=test2json", "-test.timeout="+c.o.timeout.String(),
		fmt.Sprintf("-test.parallel=%d", c.o.parallel), "-test.run=^TestEndToEnd$/"+c.o.scenarios)
	cmd.Dir = filepath.Join(c.p.root, "test", "e2e")
	cmd.Env = append(os.Environ(), rig.ClusterEnv+"="+c.p.cluster, rig.ProgramsEnv+"="+c.p.bin, rig.ChartsEnv+"="+c.p.charts, rig.BuildEnv+"="+build, rig.LogsEnv+"="+c.p.logs, "TMPDIR="+c.p.temporary())
	if c.o.keep {
		cmd.Env = append(cmd.Env, rig.KeepEnv+"=yes")
	}
	if c.o.document != "" {
		document, err := filepath.Abs(c.o.document)
		if err != nil {
			return err
		}
		cmd.Env = append(cmd.Env, rig.DocumentEnv+"="+document)
	}
	// A signal lets the scenarios' cleanups go; the cluster is stopped in any case.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	file, err := os.Create(filepath.Join(c.p.logs, "scenarios.log"))
	if err != nil {
		return err
	}
	defer file.Close()
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	report := newReport(os.Stdout, file)
	read := make(chan struct{})
	go func() {
		report.read(r)
		close(read)
	}()
	err = c.client.Run(ctx, "cp", false, cmd, nil)
	w.Close()
	<-read
	report.print()
	if err != nil && !report.failed() { // otherwise the report has said it
		return fmt.Errorf("running the scenarios: %w", errors.Join(err, ctx.Err()))
	}
	if err != nil {
		return errors.New("scenarios failed")
	}
	if report.scenarios() == 0 {
		return fmt.Errorf("no scenario is of the name --scenarios=%s: see --help for the phases, and the methods of each in test/e2e", c.o.scenarios)
	}
	return nil
}

// step says what is being done, and how long it took.
func step(what string, do func() error) error {
	started := time.Now()
	err := do()
	took := time.Since(started).Round(100 * time.Millisecond)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Printf("%8s  %s\n", took, what)
	return nil
}

// command runs a program with its output in a log file, of which an error shows the end.
func (p paths) command(ctx context.Context, log, name string, args ...string) error {
	_, err := p.output(ctx, log, name, args...)
	return err
}

// output is command that returns what the program printed to its standard output, which is logged too.
func (p paths) output(ctx context.Context, log, name string, args ...string) (string, error) {
	path := filepath.Join(p.logs, log+".log")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return "", err
	}
	defer file.Close()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = p.root
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = io.MultiWriter(file, &out), file
	// Compilers and the cluster end with this process, whatever ends it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -trimpath -buildvcs=false"))
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s:\n%s", errors.Join(err, ctx.Err()), path, tail(path))
	}
	return out.String(), nil
}

// tail is the end of a log.
func tail(path string) string {
	const lines = 20
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}
