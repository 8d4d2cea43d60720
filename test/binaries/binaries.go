//go:build integration && linux

// Package binaries builds the programs of a Kubernetes control plane and node that tests run, each once, into the cache
// folder: ${XDG_CACHE_HOME:-~/.cache}/keymount/binaries. Their versions are pinned by the two modules below this folder,
// which hold nothing but tool directives: kubernetes, and runtime for what would raise Kubernetes' dependencies.
//
// A program's folder is named for everything that decides its bytes (go.mod, go.sum, flags, toolchain, target), so what is
// there is right and is never built again. Any number of processes may call Ensure at once: a lock lets one build.
//
// It imports nothing but the standard library, so that it runs before anything else is compiled.
package binaries

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// AssetsEnv names a folder that holds the programs ready made, as controller-runtime's envtest lays them out. Programs
// found there are used as they are and never built.
const AssetsEnv = "KUBEBUILDER_ASSETS"

// A program is one main package of a pinned module.
type program struct {
	module  string // the folder of the module, below this package's
	pkg     string
	ldflags string
	takes   string // to build, on two cores with empty caches
}

// Kubernetes stamps its version at link time; without it kube-apiserver says v0.0.0-master, which clients misread.
const kubernetesLdflags = "-s -w" +
	" -X k8s.io/component-base/version.gitVersion=v1.37.2" +
	" -X k8s.io/component-base/version.gitMajor=1" +
	" -X k8s.io/component-base/version.gitMinor=37"

func programs() map[string]program {
	return map[string]program{
		"kube-apiserver": {"kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", kubernetesLdflags, "7 minutes"},
		"etcd":           {"runtime", "go.etcd.io/etcd/server/v3", "-s -w", "a minute"},
	}
}

// flags are the same for every program; the linker's come on top.
func flags() []string { return []string{"-trimpath", "-buildvcs=false"} }

// Ensure returns the path of each named program, in the order asked for, and builds those that are missing. What it
// builds, and how long that took, is written to log.
func Ensure(ctx context.Context, log io.Writer, names ...string) ([]string, error) {
	builder, err := newBuilder(log)
	if err != nil {
		return nil, err
	}
	return builder.ensure(ctx, names)
}

type builder struct {
	source   string // this package's folder
	cache    string
	assets   string // KUBEBUILDER_ASSETS
	programs map[string]program
	log      io.Writer
}

func newBuilder(log io.Writer) (*builder, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir() // honours XDG_CACHE_HOME
	if err != nil {
		return nil, fmt.Errorf("finding the cache folder for the test binaries: %w; set XDG_CACHE_HOME", err)
	}
	return &builder{
		source:   filepath.Join(root, "test", "binaries"),
		cache:    filepath.Join(cache, "keymount", "binaries"),
		assets:   os.Getenv(AssetsEnv),
		programs: programs(),
		log:      log,
	}, nil
}

func (b *builder) ensure(ctx context.Context, names []string) ([]string, error) {
	paths := make([]string, len(names))
	var missing []string
	for i, name := range names {
		path, err := b.find(name)
		if err != nil {
			return nil, err
		}
		if paths[i] = path; !executable(path) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return paths, nil
	}
	if err := b.build(ctx, missing); err != nil {
		return nil, err
	}
	return paths, nil
}

// moduleRoot walks up: tests run in their package's folder, and -trimpath leaves no other trace of where the source is.
func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module keymount\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("looking for Keymount's go.mod from %s upwards: there is none; run this inside the source tree", start)
		}
	}
}

// find tells where a program is or will be.
func (b *builder) find(name string) (string, error) {
	p, ok := b.programs[name]
	if !ok {
		return "", fmt.Errorf("no program %q is pinned in test/binaries", name)
	}
	if b.assets != "" {
		path := filepath.Join(b.assets, name)
		if !executable(path) {
			return "", fmt.Errorf("%s is set to %s, which holds no program %s: put it there, or unset the variable to have it built", AssetsEnv, b.assets, name)
		}
		return path, nil
	}
	key, err := b.key(p)
	if err != nil {
		return "", err
	}
	return filepath.Join(b.cache, key, name), nil
}

func (b *builder) key(p program) (string, error) {
	sum := sha256.New()
	for _, file := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(b.source, p.module, file))
		if err != nil {
			return "", fmt.Errorf("reading what pins the test binaries: %w", err)
		}
		fmt.Fprintf(sum, "%s %d\n%s", file, len(text), text)
	}
	fmt.Fprintln(sum, flags(), p.ldflags, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

func (b *builder) build(ctx context.Context, names []string) error {
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return fmt.Errorf("making the cache folder for the test binaries: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(b.cache, "lock"), b.log)
	if err != nil {
		return err
	}
	defer unlock()
	if err := b.checkDisk(); err != nil {
		return err
	}
	for _, name := range names {
		if err := b.buildOne(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) buildOne(ctx context.Context, name string) error {
	target, err := b.find(name)
	if err != nil {
		return err
	}
	if executable(target) { // another process built it while this one waited for the lock
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("making the folder for %s: %w", name, err)
	}
	p := b.programs[name]
	fmt.Fprintf(b.log, "building %s (%s): about %s on two cores with empty caches\n", name, p.pkg, p.takes)
	start := time.Now()
	partial := target + ".partial"
	args := append([]string{"build"}, flags()...)
	cmd := exec.CommandContext(ctx, "go", append(args, "-ldflags", p.ldflags, "-o", partial, p.pkg)...)
	cmd.Dir = filepath.Join(b.source, p.module)
	// GOFLAGS of the caller could change the bytes behind the key's back.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	cmd.Stdout, cmd.Stderr = b.log, b.log
	if err := cmd.Run(); err != nil {
		return errors.Join(fmt.Errorf("building %s in %s: %w", name, cmd.Dir, err), ctx.Err())
	}
	// Only whole programs get the name that others look for.
	if err := os.Rename(partial, target); err != nil {
		return fmt.Errorf("putting %s in its place: %w", name, err)
	}
	size := int64(0)
	if info, err := os.Stat(target); err == nil {
		size = info.Size()
	}
	fmt.Fprintf(b.log, "built %s in %s: %d MB in %s\n", name, time.Since(start).Round(time.Second), size>>20, filepath.Dir(target))
	return nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// built tells whether any program was ever built here: then the compiler's cache is taken to hold most of the work.
func (b *builder) built() bool {
	found := false
	_ = filepath.WalkDir(b.cache, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && executable(path) {
			found = true
			return filepath.SkipAll
		}
		return nil
	})
	return found
}
