//go:build integration && linux

// Command cluster runs a real Kubernetes cluster on a plain Linux machine, as root: no Docker, no registry, no virtual
// machines. Only this package reads flags, prints for people and exits. It knows nothing of Keymount.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"keymount/test/e2e/cluster/internal/machine"
	"keymount/test/e2e/cluster/internal/sweep"
)

// The first process of a machine must do its work on the main thread; see machine.Init.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) > 1 && os.Args[1] == machine.InitCommand {
		exit(machine.Init(os.Args[2:]))
	}
	runtime.UnlockOSThread()
	if len(os.Args) > 1 && os.Args[1] == sweep.Command {
		exit(sweep.Watch(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	exit(rootCommand().ExecuteContext(ctx))
}

// exit ends the process. A command that was run for the user passes its exit code on.
func exit(err error) {
	var code exitCode
	var ended *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &code):
		os.Exit(int(code))
	case errors.As(err, &ended) && ended.ExitCode() > 0:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(ended.ExitCode())
	}
	fmt.Fprintln(os.Stderr, "cluster:", err)
	os.Exit(1)
}

// An exitCode is how a command ended that said itself what there was to say.
type exitCode int

// Error returns what a shell would say.
func (c exitCode) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

const long = `cluster runs a real Kubernetes cluster on this machine, as root: kube-apiserver, etcd, controller manager, scheduler, and nodes
with kubelet, containerd and runc. It needs no Docker, no registry and no virtual machine; the programs are built from their Go
modules once, some 15 minutes, and kept.

Each machine (cp, n1, n2, ...) is a set of Linux namespaces with a root file system of its own. Everything about a cluster is
in its folder (--dir), its logs too, which alone outlive it. Whatever is killed, nothing else is left behind.

  cp  10.200.0.1   kube-apiserver on 10.96.0.1:443 only; a name server that answers from the file DIR/hosts
  n1  10.200.0.11  pods 10.244.1.0/24
  n2  10.200.0.12  pods 10.244.2.0/24

Images are tars in the OCI layout ('go -C images run . pack --help' makes small ones). There is no kube-proxy: of Services only
"kubernetes" has a working address. Containers' host ports are not mapped.`

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "cluster", Short: "Run a real Kubernetes cluster on this machine", Long: long,
		Example: `  alias cluster='go run -tags integration ./test/e2e/cluster'
  cluster up --nodes 2 --image driver.tar
  export KUBECONFIG=$PWD/.cache/cluster/kubeconfig
  cluster fault reboot n1
  cluster exec -- curl -sk https://10.96.0.1/healthz
  cluster down`,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w (%s --help lists the flags)", err, c.CommandPath())
	})
	root.PersistentFlags().String("dir", "", "the cluster's folder (default .cache/cluster in the source tree)")
	root.AddCommand(upCommand(), downCommand(), statusCommand(), execCommand(), loadCommand(), faultCommand(),
		keepCommand(), dnsCommand(), proxyCommand())
	return root
}
