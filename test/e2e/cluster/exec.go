//go:build integration && linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"keymount/test/e2e/cluster/control"
	"keymount/test/e2e/cluster/internal/layout"
)

func execCommand() *cobra.Command {
	var machine string
	var all bool
	c := &cobra.Command{
		Use: "exec [--machine NAME] [--all] [--] COMMAND [ARGUMENT...]", Short: "Run a command in a machine of the cluster",
		Long: `exec runs a command in the network of a machine: what it listens on, pods can reach. Files, processes and the rest are this
machine's, unless --all is given: then the command runs in everything that the machine has. Input, output, signals and the exit
code are the command's. It is killed when the cluster ends, or this process.`,
		Example: `  cluster exec -- ip address
  cluster exec --machine n1 --all -- ctr -n k8s.io images list`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := dial(c)
			if err != nil {
				return err
			}
			defer client.Close()
			return run(client, machine, all, args)
		},
	}
	c.Flags().SetInterspersed(false) // the command's flags are its own
	c.Flags().StringVar(&machine, "machine", layout.ControlPlane, "the machine: cp, n1, n2, ...")
	c.Flags().BoolVar(&all, "all", false, "in all that the machine has: files, processes, host name, control groups")
	return c
}

func run(client *control.Client, machine string, all bool, args []string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if all {
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), "PATH="+control.MachinePath)
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals) // before the command starts, so that none is lost
	defer signal.Stop(signals)
	err := client.Run(context.Background(), machine, all, cmd, func(p *os.Process) {
		go func() {
			for s := range signals {
				if s != unix.SIGCHLD && s != unix.SIGURG && s != unix.SIGPIPE {
					_ = p.Signal(s) // it may just have ended
				}
			}
		}()
	})
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		return err
	}
	if status := ended.Sys().(syscall.WaitStatus); status.Signaled() {
		return exitCode(128 + int(status.Signal()))
	}
	return exitCode(ended.ExitCode())
}

func loadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "load FILE.tar...", Short: "Import images into every node",
		Long: `load imports tars in the OCI layout, whose index names the image, into every node. Pods use them with the imagePullPolicy
IfNotPresent or Never; a tag other than latest has the first by default.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := dial(c)
			if err != nil {
				return err
			}
			defer client.Close()
			if err := client.Load(c.Context(), args...); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "imported %d images\n", len(args))
			return nil
		},
	}
}
