//go:build integration && linux

package main

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"keymount/test/binaries"
)

// space is what images, nodes and logs take at most, in bytes. Programs that have to be built check for theirs.
const space = 4 << 30

// needs are the programs and files that are installed where they are missing, each with its Debian package.
func needs() []string {
	return []string{"busybox=busybox-static", "ip=iproute2", "mount", "gcc", "pkg-config", "/usr/include/stdio.h=libc6-dev", "/usr/include/seccomp.h=libseccomp-dev"}
}

// ready makes sure of what everything else needs: room, and Debian's packages.
func (p paths) ready(ctx context.Context) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(p.out, &disk); err != nil {
		return fmt.Errorf("asking for the room in %s: %w", p.out, err)
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < space {
		return fmt.Errorf("%s has %d MiB free, %d MiB are needed for a cluster", p.out, free>>20, space>>20)
	}
	return p.command(ctx, "packages", "scripts/need", needs()...)
}

// ensureBinaries builds the programs of a cluster that are not there, and its own. What takes long is said.
func (p paths) ensureBinaries(ctx context.Context) error {
	names := slices.Concat(binaries.Node(), binaries.ControlPlane())
	var kubectl string
	err := step("programs of Kubernetes", func() error {
		found, err := binaries.Ensure(ctx, os.Stdout, names...)
		if err == nil {
			kubectl = found[slices.Index(names, "kubectl")]
		}
		return err
	})
	if err != nil {
		return err
	}
	link := filepath.Join(p.bin, "kubectl")
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(kubectl, link); err != nil {
		return err
	}
	return step("the cluster's program", func() error {
		return p.command(ctx, "build", "go", "build", "-tags", "integration", "-o", filepath.Join(p.bin, "cluster"), "./test/e2e/cluster")
	})
}

// buildAll compiles the scenarios, helm and the images, and returns the images' files.
func (p paths) buildAll(ctx context.Context) (images []string, err error) {
	// Two at a time: each compiles with all processors anyway.
	work, all := errgroup.WithContext(ctx)
	work.Go(func() error {
		err := step("scenarios", func() error {
			return p.command(all, "build", "go", "test", "-c", "-tags", "integration", "-o", filepath.Join(p.bin, "e2e.test"), "./test/e2e")
		})
		if err != nil {
			return err
		}
		return step("helm", func() error {
			return p.command(all, "build", "go", "build", "-modfile=tools/go.mod", "-ldflags", "-s -w", "-o", filepath.Join(p.bin, "helm"), "helm.sh/helm/v4/cmd/helm")
		})
	})
	work.Go(func() error { return step("images", func() error { return p.buildImages(all) }) })
	if err := work.Wait(); err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(p.images, "*.tar"))
}

// buildImages makes the product's images and those that only tests have.
func (p paths) buildImages(ctx context.Context) error {
	if err := errors.Join(os.RemoveAll(p.images), os.MkdirAll(p.images, 0o755)); err != nil {
		return err
	}
	program := filepath.Join(p.bin, "images")
	if err := p.command(ctx, "images", "go", "-C", "images", "build", "-o", program, "."); err != nil {
		return err
	}
	platform := "linux/" + runtime.GOARCH
	if err := p.command(ctx, "images", program, "build", "--source", p.root, "--out", p.images, "--platform", platform); err != nil {
		return err
	}
	return p.packTestImages(ctx, program, platform)
}

// applets are the commands that pods of scenarios may use.
func applets() []string {
	return []string{"cat", "chmod", "cp", "cut", "date", "echo", "env", "false", "find", "grep", "head", "id", "kill", "ln", "ls", "mkdir", "mount", "mv", "nslookup",
		"ps", "readlink", "rm", "sed", "sh", "sha256sum", "sleep", "sort", "stat", "tail", "test", "touch", "tr", "true", "umount", "uname", "wc", "wget"}
}

// static refuses a program that would not run alone in an image.
func static(path string) error {
	file, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	defer file.Close()
	if slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return fmt.Errorf("%s needs shared libraries: install the package busybox-static in its place", path)
	}
	return nil
}

// build names the content of all images.
func (p paths) build() (string, error) {
	files, err := filepath.Glob(filepath.Join(p.images, "*.tar"))
	sum := sha256.New()
	for _, name := range files {
		file, openErr := os.Open(name)
		if openErr != nil {
			return "", openErr
		}
		_, copyErr := io.Copy(sum, file)
		err = errors.Join(err, copyErr, file.Close())
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], err
}
