//go:build integration && linux

// Package network joins the machines of a cluster: a bridge in the control plane's network namespace, a pair of virtual
// cables to each node, routes to the nodes' pods. Nothing of it is in the outer machine's network namespace, and all of it
// goes with the machines.
//
// It imports enter, which runs iproute2 in the machines' namespaces, and layout for the addresses. Its functions may be
// called concurrently for different nodes.
package network

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"keymount/test/e2e/cluster/internal/enter"
	"keymount/test/e2e/cluster/internal/layout"
)

// ControlPlane makes the network in the namespaces of cp's first process.
func ControlPlane(ctx context.Context, cp int) error {
	return ip(ctx, cp, fmt.Sprintf(`
link set lo up
address add %s/32 dev lo
link add br0 type bridge
address add %s/24 dev br0
link set br0 up
`, layout.APIServer, layout.GatewayIP))
}

// Node connects node i, whose first process is that, with cp. A cable of an earlier life of the node is cut.
func Node(ctx context.Context, cp, node, i int) error {
	cable := "v-" + layout.NodeName(i)
	// The kernel removes the cable of a node that is gone, but takes its time.
	_ = enter.Run(ctx, cp, enter.Network, nil, "ip", "link", "delete", cable)
	if err := ip(ctx, cp, fmt.Sprintf(`
link add %[1]s type veth peer name eth0 netns %[2]s
link set %[1]s master br0
link set %[1]s up
route replace %[3]s via %[4]s
`, cable, strconv.Itoa(node), layout.PodRange(i), layout.NodeIP(i))); err != nil {
		return err
	}
	return ip(ctx, node, fmt.Sprintf(`
link set lo up
address add %s/24 dev eth0
link set eth0 up
route add default via %s
`, layout.NodeIP(i), layout.GatewayIP))
}

// Partition cuts node i off; Heal joins it again.
func Partition(ctx context.Context, cp, i int) error { return cable(ctx, cp, i, "down") }

// Heal: see [Partition].
func Heal(ctx context.Context, cp, i int) error { return cable(ctx, cp, i, "up") }

func cable(ctx context.Context, cp, i int, state string) error {
	return ip(ctx, cp, "link set v-"+layout.NodeName(i)+" "+state+"\n")
}

// ip runs iproute2 with many commands at once.
func ip(ctx context.Context, pid int, commands string) error {
	return enter.Run(ctx, pid, enter.Network, strings.NewReader(commands), "ip", "-batch", "-")
}
