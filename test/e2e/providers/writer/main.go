//go:build integration && linux

// Command writer is a provider of the test cluster that writes its files into the volume itself, as old providers do, and
// tells the driver only their versions. It needs kubelet's folder of pods, with mounts propagated into its container.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"keymount/api/provider/v1alpha1"
	"keymount/test/e2e/providers/serve"
)

func main() {
	os.Exit(serve.Main(serve.Provider{Name: "writer", Does: "writes files into the volume itself", Mount: write}))
}

// write puts each file straight into its place: whoever reads meanwhile may find half of it, as with the old providers.
func write(target string, files []*v1alpha1.File) (*v1alpha1.MountResponse, error) {
	// Without the volume's folder the mounts are not propagated; to make it would write where no pod looks.
	if info, err := os.Stat(target); err != nil || !info.IsDir() || !filepath.IsAbs(target) {
		return nil, fmt.Errorf("the volume %q is not here: mount kubelet's folder of pods with mountPropagation HostToContainer", target)
	}
	for _, f := range files {
		path := filepath.Join(target, f.GetPath())
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, fmt.Errorf("making a folder for %q: %w", f.GetPath(), err)
		}
		mode := fs.FileMode(f.GetMode())
		if err := os.WriteFile(path, f.GetContents(), mode); err != nil {
			return nil, fmt.Errorf("writing %q: %w", f.GetPath(), err)
		}
		// The mode again: a file that was there keeps its own, and the umask is the container's.
		if err := os.Chmod(path, mode); err != nil {
			return nil, fmt.Errorf("setting the mode of %q: %w", f.GetPath(), err)
		}
	}
	return &v1alpha1.MountResponse{}, nil
}
