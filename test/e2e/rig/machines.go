//go:build integration && linux

package rig

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keymount/test/e2e/cluster/control"
)

// Nodes are the names of the cluster's nodes.
func (s *Scenario) Nodes() []string {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	list, err := s.api.client.Resource(corev1.SchemeGroupVersion.WithResource("nodes")).List(ctx, metav1.ListOptions{})
	if err != nil {
		s.Fatalf("listing the nodes: %v", err)
	}
	var names []string
	for _, n := range list.Items {
		names = append(names, n.GetName())
	}
	slices.Sort(names)
	return names
}

// OnNode runs a command in everything that a node has, as its administrator would, and returns what it printed.
func (s *Scenario) OnNode(node string, command ...string) string {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	out, err := s.onNode(ctx, node, command...)
	if err != nil {
		s.Fatalf("running %q on node %s: %v", command, node, err)
	}
	return out
}

func (s *Suite) onNode(ctx context.Context, node string, command ...string) (string, error) {
	var out, said strings.Builder
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + control.MachinePath}
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := s.Cluster.Run(ctx, node, true, cmd, nil); err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return out.String(), nil
}

// Alias gives an image another name on all nodes, such as the one that a chart of upstream's has.
func (s *Scenario) Alias(image, name string) {
	s.Helper()
	for _, node := range s.Nodes() {
		s.OnNode(node, "ctr", "--namespace", "k8s.io", "images", "tag", "--force", image, name)
	}
}

// Mounts are the mounts of the pod's CSI volumes on its node, each with the ids that the kernel gave it: a volume that is mounted anew has others.
func (p *Pod) Mounts() []string {
	p.s.Helper()
	var all []string
	for line := range strings.Lines(p.s.OnNode(p.Node, "cat", "/proc/self/mountinfo")) {
		// ID, parent's ID, device, root, path
		if f := strings.Fields(line); len(f) > 4 && strings.Contains(f[4], "/pods/"+p.UID+"/volumes/kubernetes.io~csi/") {
			all = append(all, strings.Join(f[:5], " "))
		}
	}
	slices.Sort(all)
	return all
}
