//go:build integration && linux

package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"keymount/test/e2e/cluster/control"
	"keymount/test/e2e/cluster/internal/layout"
)

// clusterDir is the folder that the flag names.
func clusterDir(c *cobra.Command) (layout.Dir, error) {
	path, err := c.Flags().GetString("dir")
	if err != nil {
		return "", err
	}
	if path == "" {
		root, err := sourceTree()
		if err != nil {
			return "", fmt.Errorf("finding the default of --dir: %w", err)
		}
		path = filepath.Join(root, ".cache", "cluster")
	}
	return layout.Find(path)
}

// sourceTree finds the folder of Keymount's go.mod.
func sourceTree() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("asking go for the module: %w; run this inside Keymount's source tree", err)
	}
	path, dir, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if path != "keymount" {
		return "", errors.New("this folder belongs to the module " + path + "; run this inside Keymount's source tree")
	}
	return dir, nil
}

// dial connects to the cluster that the flag names.
func dial(c *cobra.Command) (*control.Client, error) {
	dir, err := clusterDir(c)
	if err != nil {
		return nil, err
	}
	client, err := control.Dial(string(dir))
	if errors.Is(err, control.ErrNotRunning) {
		return nil, fmt.Errorf("%w; start one with: cluster up --dir %s", err, dir)
	}
	return client, err
}
