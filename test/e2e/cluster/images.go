//go:build integration && linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"keymount/test/e2e/cluster/internal/config"
	"keymount/test/e2e/cluster/internal/layout"
)

// pauseImage makes the image of the pods' first process, and returns its tar.
func pauseImage(ctx context.Context, dir layout.Dir) (string, error) {
	root, err := sourceTree()
	if err != nil {
		return "", fmt.Errorf("making the pause image: %w", err)
	}
	program, tar := filepath.Join(dir.Images(), "pause"), filepath.Join(dir.Images(), "pause.tar")
	for _, step := range [][]string{
		{"-C", root, "build", "-tags", "integration", "-ldflags", "-s -w", "-o", program, "./test/e2e/cluster/pause"},
		{"-C", filepath.Join(root, "images"), "run", ".", "pack", "--out", tar, "--name", config.PauseImage,
			"--file", "/pause=" + program, "--entrypoint", "/pause", "--user", "65535:65535"},
	} {
		cmd := exec.CommandContext(ctx, "go", step...)
		// The same flags as the Makefile's, so that what is compiled is found in the cache.
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false")
		var output bytes.Buffer
		cmd.Stdout, cmd.Stderr = &output, &output
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("making the pause image: %w: %s", err, &output)
		}
	}
	return tar, nil
}
