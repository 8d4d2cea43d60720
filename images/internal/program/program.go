// Package program compiles the project's programs for an image: static, and the same bytes from the same source in any
// folder on any machine with the same Go. It knows nothing of images. Its functions may be called concurrently.
package program

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Stamp is what the programs say of themselves.
type Stamp struct{ Version, Commit, Date string }

// Flags are the flags of go build: the same as the Makefile's.
func Flags(s Stamp) []string {
	return []string{"-trimpath", "-buildvcs=false", "-ldflags",
		"-s -w -X main.version=" + s.Version + " -X main.gitCommit=" + s.Commit + " -X main.buildDate=" + s.Date}
}

// platforms are those that images are made for, with the baseline of instructions that every machine of the kind has.
func platforms() map[string][]string {
	return map[string][]string{
		"linux/amd64": {"GOOS=linux", "GOARCH=amd64", "GOAMD64=v1"},
		"linux/arm64": {"GOOS=linux", "GOARCH=arm64", "GOARM64=v8.0"},
	}
}

// ParsePlatforms reads a list such as "linux/amd64,linux/arm64"; the order is kept.
func ParsePlatforms(list string) ([]v1.Platform, error) {
	var all []v1.Platform
	seen := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if _, known := platforms()[name]; !known {
			return nil, fmt.Errorf("unknown platform %q: images are made for linux/amd64 and linux/arm64", name)
		}
		if seen[name] {
			return nil, fmt.Errorf("platform %s is given twice", name)
		}
		seen[name] = true
		os, arch, _ := strings.Cut(name, "/")
		all = append(all, v1.Platform{OS: os, Architecture: arch})
	}
	return all, nil
}

// Compile builds the programs (the names of folders below cmd) of the module in dir into the folder out.
func Compile(ctx context.Context, dir, out string, p v1.Platform, stamp Stamp, names []string) error {
	args := append([]string{"build"}, Flags(stamp)...)
	// A separator at the end makes it a folder for go build, also for one program.
	args = append(args, "-o", out+string(filepath.Separator))
	for _, name := range names {
		args = append(args, "./cmd/"+name)
	}
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Stderr = dir, &stderr
	cmd.Env = environment(p)
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("compiling for %s: go is not in PATH: install Go 1.26 or later (https://go.dev/dl)", p.String())
	case ctx.Err() != nil:
		return fmt.Errorf("compiling for %s: %w", p.String(), context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("compiling %s in %s for %s: %w\n%s", strings.Join(names, ", "), dir, p.String(), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// environment is this process's without what would change the programs: flags, experiments and workspaces of whoever builds.
func environment(p v1.Platform) []string {
	var env []string
	for _, kv := range os.Environ() {
		key, _, _ := strings.Cut(kv, "=")
		switch key {
		case "GOFLAGS", "GOEXPERIMENT", "GOWORK", "GOFIPS140", "GODEBUG", "CGO_ENABLED", "GOOS", "GOARCH", "GOAMD64", "GOARM64", "PWD":
		default:
			env = append(env, kv)
		}
	}
	// GOFLAGS is set, not only removed, since `go env -w` may hold others.
	env = append(env, "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false", "GOWORK=off", "GOFIPS140=off")
	return append(env, platforms()[p.String()]...)
}
