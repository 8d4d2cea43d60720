//go:build integration && linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"keymount/test/e2e/cluster/control"
	"keymount/test/e2e/cluster/internal/layout"
)

// onControlPlane maps the short names of cp's components to their own.
var onControlPlane = [...][2]string{
	{"apiserver", "kube-apiserver"}, {"etcd", "etcd"}, {"controller-manager", "kube-controller-manager"},
	{"scheduler", "kube-scheduler"}, {"dns", "dns"},
}

// onNode lists the components of a node.
var onNode = [...]string{"kubelet", "containerd"}

var actions = [...]control.Action{control.Kill, control.Stop, control.Start, control.Pause, control.Resume}

// A fault is what a command line asks for.
type fault struct {
	network   string // reboot, partition, heal; else:
	action    control.Action
	component string
	machine   string
}

func faultCommand() *cobra.Command {
	return &cobra.Command{
		Use: "fault FAULT [MACHINE]", Short: "Break something, or mend it",
		Long: `fault does one of these, and returns when it is done:

  kill-COMPONENT     end it at once; it is started again after 0.3 s
  stop-COMPONENT     end it and keep it away, until start-COMPONENT
  pause-COMPONENT    it stays, and does not move, until resume-COMPONENT
  reboot NODE        end the machine and start it again with its disk, a new boot id, and nothing mounted
  partition NODE     cut it off the network, until heal NODE

COMPONENT is kubelet or containerd, and a NODE follows; or apiserver, etcd, controller-manager, scheduler or dns, of machine cp.`,
		Example: `  cluster fault kill-kubelet n1
  cluster fault pause-apiserver
  cluster fault reboot n1`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := parseFault(args)
			if err != nil {
				return err
			}
			client, err := dial(c)
			if err != nil {
				return err
			}
			defer client.Close()
			return f.do(c.Context(), client)
		},
	}
}

func parseFault(args []string) (fault, error) {
	name, machine := args[0], ""
	if len(args) > 1 {
		machine = args[1]
	}
	if slices.Contains([]string{"reboot", "partition", "heal"}, name) {
		if machine == "" {
			return fault{}, fmt.Errorf("%s needs a node: cluster fault %s n1", name, name)
		}
		return fault{network: name, machine: machine}, nil
	}
	verb, component, _ := strings.Cut(name, "-")
	action := control.Action(verb)
	if !slices.Contains(actions[:], action) {
		return fault{}, fmt.Errorf("there is no fault %q: see cluster fault --help", name)
	}
	for _, names := range onControlPlane {
		if component != names[0] {
			continue
		}
		if machine != "" && machine != layout.ControlPlane {
			return fault{}, fmt.Errorf("%s runs on machine %s only", component, layout.ControlPlane)
		}
		return fault{action: action, component: names[1], machine: layout.ControlPlane}, nil
	}
	if !slices.Contains(onNode[:], component) {
		return fault{}, fmt.Errorf("there is no component %q: see cluster fault --help", component)
	}
	if machine == "" {
		return fault{}, fmt.Errorf("%s needs a node: cluster fault %s n1", name, name)
	}
	return fault{action: action, component: component, machine: machine}, nil
}

func (f fault) do(ctx context.Context, client *control.Client) error {
	switch f.network {
	case "reboot":
		return client.Reboot(ctx, f.machine)
	case "partition":
		return client.Partition(ctx, f.machine)
	case "heal":
		return client.Heal(ctx, f.machine)
	}
	return client.Do(ctx, f.machine, f.action, f.component)
}
