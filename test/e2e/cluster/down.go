//go:build integration && linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"keymount/test/e2e/cluster/control"
	"keymount/test/e2e/cluster/internal/layout"
	"keymount/test/e2e/cluster/internal/sweep"
)

// patience is how long a cluster may take to stop before its holder is killed.
const patience = 20 * time.Second

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Stop the cluster and remove all of it but its logs",
		Long: `down stops the cluster of the folder and removes its processes, mounts, control groups and data; the logs stay until the next
start. Where no cluster runs it removes what one may have left, so it can be repeated.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := clusterDir(c)
			if err != nil {
				return err
			}
			return down(c.Context(), dir, c.OutOrStdout())
		},
	}
}

func down(ctx context.Context, dir layout.Dir, out io.Writer) error {
	if _, err := os.Stat(string(dir)); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(out, "no cluster in %s\n", dir)
		return nil
	}
	start := time.Now()
	client, err := control.Dial(string(dir))
	running := err == nil
	if running {
		defer client.Close()
		if err := stop(ctx, client); err != nil {
			return err
		}
	} else if !errors.Is(err, control.ErrNotRunning) {
		return err
	} else if err := dir.Check(); err != nil {
		return err // nothing runs there, and nothing in it is ours
	}
	// The sweeper, which ends last, holds the lock too.
	waiting, cancel := context.WithTimeoutCause(ctx, 2*patience, errors.New("a process of the cluster does not end"))
	defer cancel()
	lock, err := sweep.AwaitLock(waiting, dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := sweep.Clean(dir); err != nil {
		return err
	}
	if !running {
		fmt.Fprintf(out, "no cluster ran in %s; what one may have left is removed\n", dir)
		return nil
	}
	fmt.Fprintf(out, "cluster stopped in %.1fs; logs in %s\n", time.Since(start).Seconds(), dir.Logs())
	return nil
}

func stop(ctx context.Context, client *control.Client) error {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := client.Down(bounded)
	if err == nil || ctx.Err() != nil {
		return err
	}
	// It hangs. Its end is that of all machines, and the sweeper cleans up.
	if err := unix.Kill(client.Keeper(), unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing process %d, which holds the cluster and does not stop: %w", client.Keeper(), err)
	}
	return nil
}
