//go:build integration && linux

package main

import (
	"context"
	"os/exec"
	"path/filepath"
)

// registry is the place that names of test images begin with. Nothing is there: the images are loaded into the nodes.
const registry = "docker.io/keymount-e2e/"

// A testImage is one program of the repository as an image, at the place where charts and manifests expect it.
type testImage struct {
	name, source, program string
}

// testImages are the repository's own providers, and stand-ins for the driver's sidecars.
func testImages() []testImage {
	return []testImage{
		{"returner", "./test/e2e/providers/returner", "/returner"},
		{"writer", "./test/e2e/providers/writer", "/writer"},
		{"registrar", "./test/e2e/sidecars/registrar", "/csi-node-driver-registrar"},
		{"livenessprobe", "./test/e2e/sidecars/liveness", "/livenessprobe"},
	}
}

// packTestImages makes what only tests have: the images above, and one with a shell.
func (p paths) packTestImages(ctx context.Context, packer, platform string) error {
	pack := func(name string, args ...string) error {
		return p.command(ctx, "images", packer, append([]string{"pack", "--out", filepath.Join(p.images, name+".tar"), "--name", registry + name + ":1", "--platform", platform}, args...)...)
	}
	for _, image := range testImages() {
		built := filepath.Join(p.bin, filepath.Base(image.source))
		if err := p.command(ctx, "images", "go", "build", "-tags", "integration", "-ldflags", "-s -w", "-o", built, image.source); err != nil {
			return err
		}
		if err := pack(image.name, "--file", image.program+"="+built, "--entrypoint", image.program); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	if err := static(busybox); err != nil {
		return err
	}
	args := []string{"--file", "/bin/busybox=" + busybox}
	for _, applet := range applets() {
		args = append(args, "--link", "/bin/"+applet+"=/bin/busybox")
	}
	return pack("busybox", args...)
}
