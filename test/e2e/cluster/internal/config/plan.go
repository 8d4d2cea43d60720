//go:build integration && linux

// Package config says what a cluster is made of: the certificates, the kubeconfigs, and for each machine the files and the
// command lines of its components. All that is particular to Kubernetes and containerd, and to running them on a plain
// machine, stands here with its reason.
//
// It imports layout for names and addresses, and machine for the form that a machine is described in. It writes files below
// the cluster's folder. It is used by one goroutine.
package config

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"keymount/test/controlplane"
	"keymount/test/e2e/cluster/internal/layout"
)

// PauseImage is the image of the process that holds a pod's namespaces.
const PauseImage = "docker.io/keymount-e2e/pause:1"

// BootID is the sysctl that each life of a machine has its own value of.
const BootID = "kernel/random/boot_id"

// A Plan is what a cluster is started from.
type Plan struct {
	Nodes         int
	SyncFrequency time.Duration     // of kubelet: how often it looks at each pod, and so republishes CSI volumes
	Programs      map[string]string // paths by name
	Images        []string          // tars to import into every node
}

// Write keeps the plan for the process that holds the cluster.
func (p Plan) Write(dir layout.Dir) error {
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the cluster's plan: %w", err)
	}
	return controlplane.WriteFile(dir.Plan(), text)
}

// ReadPlan reads what Write wrote.
func ReadPlan(dir layout.Dir) (Plan, error) {
	var p Plan
	text, err := os.ReadFile(dir.Plan())
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return Plan{}, fmt.Errorf("reading the cluster's plan: %w", err)
	}
	return p, nil
}
