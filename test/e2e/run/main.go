//go:build integration && linux

// Command run runs the end-to-end scenarios: it installs and builds what is missing, starts a cluster, runs the scenarios in the network of its control
// plane, stops it, and fails if anything is left behind. make e2e calls it.
//
// It is two processes. The outer one only watches: it notes what there is before, starts the inner one, which does everything, and compares after
// that one's end, however it ended.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const usage = `run: the end-to-end scenarios on a real cluster, as root

  go run -tags integration ./test/e2e/run                                all scenarios on a new cluster
  go run -tags integration ./test/e2e/run --scenarios provider/Missing --keep
                                                                         some of them, on a cluster that stays up for the next run

--scenarios is a phase and a part of a scenario's name, both regular expressions, as in provider/WorkloadIdentity. The phases are provider, disruptive,
builtin, figures, upgrade and uninstall (test/e2e/phases_test.go); scenarios are their methods. With --keep what a failed scenario made stays in its
namespace; look at it with
  kubectl --kubeconfig .cache/e2e/cluster/kubeconfig ...
and end the cluster by a run without --keep, or by test/e2e/cluster down.

Flags:
`

// options are what flags say.
type options struct {
	scenarios string
	keep      bool
	out       string
	document  string
	nodes     int
	parallel  int
	timeout   time.Duration
	inner     bool
}

func main() {
	var o options
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	flags.StringVar(&o.scenarios, "scenarios", "", "which to run: `PHASE/NAME`")
	flags.BoolVar(&o.keep, "keep", false, "leave the cluster running, and use one that was left so")
	flags.StringVar(&o.out, "out", filepath.Join(".cache", "e2e"), "`folder` for what is built, the cluster and the logs, in the source tree; another one has a cluster of its own")
	flags.StringVar(&o.document, "document", "", "`file` whose block \"make e2e\" is replaced by the figures, such as docs/performance.md")
	flags.IntVar(&o.nodes, "nodes", 2, "how many nodes a new cluster has")
	flags.IntVar(&o.parallel, "parallel", 10, "how many scenarios run at the same time")
	flags.DurationVar(&o.timeout, "timeout", 30*time.Minute, "time for the scenarios; building is not counted")
	flags.BoolVar(&o.inner, "inner", false, "do the work without watching over it; for the program's own use")
	flags.Usage = func() { fmt.Fprint(flags.Output(), usage); flags.PrintDefaults() }
	_ = flags.Parse(os.Args[1:]) // exits by itself
	if err := start(o, flags.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
}

func start(o options, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown argument %q: see --help", args[0])
	}
	if os.Geteuid() != 0 {
		return errors.New("nodes need root: run it as root, best on a machine for tests")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root, err := repository()
	if err != nil {
		return err
	}
	p := newPaths(root, o.out)
	if o.inner {
		return inner(ctx, o, p)
	}
	return outer(ctx, o, p)
}

// repository finds the root of the source tree, and goes there.
func repository() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	root := strings.TrimSpace(string(out))
	if err != nil || root == "" {
		return "", fmt.Errorf("finding the source tree: %w: run it inside of it", err)
	}
	return root, os.Chdir(root)
}

// outer starts the inner process and compares what is there after it with what was there before.
func outer(ctx context.Context, o options, p paths) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if err := p.claim(); err != nil {
		return err
	}
	before, err := survey()
	if err != nil {
		return err
	}
	cmd := exec.Command(program, append(os.Args[1:], "--inner")...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Should this process be killed, the inner one still stops the cluster. In a group of its own, a Ctrl-C comes to it once: from here.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the inner process: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		err = <-ended
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
		err = errors.New("failed; all logs are in " + p.logs)
	}
	if o.keep {
		return err
	}
	err = errors.Join(err, os.RemoveAll(p.temporary()))
	// Whatever the inner process did, the cluster is stopped: it does nothing where none runs.
	clean, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return errors.Join(err, p.down(clean), before.compare(clean, p))
}

// down stops the cluster if it runs, and removes what one left that was killed.
func (p paths) down(ctx context.Context) error {
	program := filepath.Join(p.bin, "cluster")
	if _, err := os.Stat(program); errors.Is(err, os.ErrNotExist) {
		return nil // there never was one
	}
	return p.command(ctx, "cluster-down", program, "down", "--dir", p.cluster)
}

// paths are where things are put.
type paths struct {
	root, out, bin, images, charts, cluster, logs string
}

func newPaths(root, out string) paths {
	if !filepath.IsAbs(out) {
		out = filepath.Join(root, out)
	}
	return paths{root: root, out: out, bin: filepath.Join(out, "bin"), images: filepath.Join(out, "images"), charts: filepath.Join(root, "charts"),
		cluster: filepath.Join(out, "cluster"), logs: filepath.Join(out, "logs")}
}

// claim makes the folder, or takes one that was a run's before. What a run removes, such as images and tmp, is somebody's elsewhere: of the source
// tree and of a root folder, for two.
func (p paths) claim() error {
	const mark = ".keymount-e2e"
	if err := os.MkdirAll(p.out, 0o755); err != nil {
		return fmt.Errorf("making the folder of --out: %w", err)
	}
	entries, err := os.ReadDir(p.out)
	if err != nil {
		return fmt.Errorf("reading the folder of --out: %w", err)
	}
	ours := func(e os.DirEntry) bool { return e.Name() == mark || e.Name() == filepath.Base(p.sign()) }
	if len(entries) > 0 && !slices.ContainsFunc(entries, ours) {
		return fmt.Errorf("using %s for a run: it holds other files, %s for one; choose an empty or a new folder with --out", p.out, entries[0].Name())
	}
	if err := os.WriteFile(filepath.Join(p.out, mark), []byte("A folder of go run ./test/e2e/run\n"), 0o644); err != nil {
		return fmt.Errorf("marking the folder of --out: %w", err)
	}
	return nil
}

// sign is a file with the name of the cluster's control group.
func (p paths) sign() string { return filepath.Join(p.out, "control-group") }

// temporary is the folder of the scenarios' temporary files, which a killed run leaves.
func (p paths) temporary() string { return filepath.Join(p.out, "tmp") }
