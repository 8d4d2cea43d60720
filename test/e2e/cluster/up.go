//go:build integration && linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keymount/test/binaries"
	"keymount/test/e2e/cluster/control"
	"keymount/test/e2e/cluster/internal/config"
	"keymount/test/e2e/cluster/internal/layout"
	"keymount/test/e2e/cluster/internal/sweep"
)

type upFlags struct {
	nodes         int
	images        []string
	foreground    bool
	syncFrequency time.Duration
}

func upCommand() *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use: "up", Short: "Start a cluster and wait until its nodes are ready",
		Long: `up builds what is missing, starts a cluster, and returns when pods can be scheduled to every node, some 10 seconds later. The
cluster then runs until 'cluster down', held by a process of its own; with --foreground this one holds it, until it is
interrupted. If the start fails, the end of the log that most likely says why is printed, and nothing is left behind.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := clusterDir(c)
			if err != nil {
				return err
			}
			return up(c.Context(), dir, f, c.OutOrStdout())
		},
	}
	c.Flags().IntVar(&f.nodes, "nodes", 1, "how many nodes")
	c.Flags().StringArrayVar(&f.images, "image", nil, "tar of an image to import into every node; may be repeated")
	c.Flags().BoolVar(&f.foreground, "foreground", false, "hold the cluster in this process, until it is interrupted")
	c.Flags().DurationVar(&f.syncFrequency, "sync-frequency", 2*time.Second,
		"how often kubelet looks at each pod, and so asks CSI drivers to republish; a real cluster has 1m")
	return c
}

// A progress prints steps with the time since the start.
type progress struct {
	out   io.Writer
	start time.Time
}

func (p progress) say(text string) {
	fmt.Fprintf(p.out, "%6.1fs  %s\n", time.Since(p.start).Seconds(), text)
}

func (f upFlags) check() error {
	if f.nodes < 1 || f.nodes > layout.MaxNodes {
		return fmt.Errorf("--nodes %d: give 1 to %d", f.nodes, layout.MaxNodes)
	}
	if f.syncFrequency < time.Second {
		return fmt.Errorf("--sync-frequency %s: kubelet takes no less than 1s", f.syncFrequency)
	}
	for _, image := range f.images {
		if info, err := os.Stat(image); err != nil {
			return fmt.Errorf("--image: %w", err)
		} else if !info.Mode().IsRegular() {
			return fmt.Errorf("--image %s: give a tar file in the OCI layout", image)
		}
	}
	return nil
}

func up(ctx context.Context, dir layout.Dir, f upFlags, out io.Writer) error {
	if err := f.check(); err != nil {
		return err
	}
	if err := checkRequirements(); err != nil {
		return err
	}
	p := progress{out, time.Now()}
	lock, err := take(ctx, dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := prepare(ctx, dir, f, p); err != nil {
		return errors.Join(err, sweep.Clean(dir))
	}
	ready := func(address string) { explain(p, dir, address) }
	if f.foreground {
		return hold(ctx, dir, lock, p.say, ready)
	}
	return detach(ctx, dir, lock, p.say, ready)
}

// take locks the folder for a new cluster. After a cluster that was killed, it waits for the sweeper.
func take(ctx context.Context, dir layout.Dir) (*os.File, error) {
	if err := dir.Claim(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("no cluster answers there, yet a process holds the folder"))
	defer cancel()
	lock, err := sweep.Lock(dir)
	if errors.Is(err, sweep.ErrLocked) {
		if client, dialErr := control.Dial(string(dir)); dialErr == nil {
			client.Close()
			return nil, fmt.Errorf("a cluster runs in %s already, held by process %d: stop it with 'cluster down --dir %s', or choose another --dir",
				dir, client.Keeper(), dir)
		}
		lock, err = sweep.AwaitLock(ctx, dir)
	}
	return lock, err
}

// prepare makes all that the keeper starts from, in a clean folder.
func prepare(ctx context.Context, dir layout.Dir, f upFlags, p progress) error {
	if err := sweep.Clean(dir); err != nil {
		return fmt.Errorf("removing what an earlier cluster left: %w", err)
	}
	if err := os.RemoveAll(dir.Logs()); err != nil {
		return fmt.Errorf("removing an earlier cluster's logs: %w", err)
	}
	for _, path := range []string{dir.Logs(), dir.Images()} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("preparing the cluster's folder: %w", err)
		}
	}
	names := append(binaries.ControlPlane(), binaries.Node()...)
	paths, err := binaries.Ensure(ctx, p.out, names...)
	if err != nil {
		return err
	}
	plan := config.Plan{Nodes: f.nodes, SyncFrequency: f.syncFrequency, Programs: map[string]string{}}
	for i, name := range names {
		plan.Programs[name] = paths[i]
	}
	pause, err := pauseImage(ctx, dir)
	if err != nil {
		return err
	}
	for _, image := range append([]string{pause}, f.images...) {
		path, err := filepath.Abs(image)
		if err != nil {
			return fmt.Errorf("finding the image %s: %w", image, err)
		}
		plan.Images = append(plan.Images, path)
	}
	p.say("programs and images are there")
	return plan.Write(dir)
}

// explain tells what can be done now.
func explain(p progress, dir layout.Dir, address string) {
	p.say("cluster ready; the API server is https://" + address)
	kubectl := "kubectl"
	if plan, err := config.ReadPlan(dir); err == nil {
		kubectl = plan.Programs["kubectl"]
	}
	fmt.Fprint(p.out, strings.NewReplacer("KUBECTL", kubectl, "DIR", string(dir)).Replace(`
  export KUBECONFIG=DIR/kubeconfig
  KUBECTL get nodes

logs DIR/logs; host names DIR/hosts; stop it with: cluster down --dir DIR
`))
}
