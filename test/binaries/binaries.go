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

// AssetsEnv names a folder that holds programs ready made, as controller-runtime's envtest lays them out: kube-apiserver, etcd
// and kubectl. They are used as they are and never built; the others are not looked for there.
const AssetsEnv = "KUBEBUILDER_ASSETS"

// A program is one main package of a pinned module.
type program struct {
	module  string // the folder of the module, below this package's
	pkg     string
	ldflags string
	takes   string // to build, on two cores with empty caches
	tags    string
	cgo     bool // needs a C compiler, and libseccomp
	asset   bool // one of those that envtest lays out in KUBEBUILDER_ASSETS
}

// Kubernetes stamps its version at link time; without it kube-apiserver says v0.0.0-master, which clients misread.
const kubernetesLdflags = "-s -w" +
	" -X k8s.io/component-base/version.gitVersion=v1.37.2" +
	" -X k8s.io/component-base/version.gitMajor=1" +
	" -X k8s.io/component-base/version.gitMinor=37"

func programs() map[string]program {
	kubernetes := func(name, takes string) program {
		return program{module: "kubernetes", pkg: "k8s.io/kubernetes/cmd/" + name, ldflags: kubernetesLdflags, takes: takes}
	}
	runtime := func(pkg, takes string) program {
		return program{module: "runtime", pkg: pkg, ldflags: "-s -w", takes: takes}
	}
	asset := func(p program) program { p.asset = true; return p }
	// containerd's build without the snapshotters of file systems that no test uses, and that need C libraries.
	containerd := func(name, takes string) program {
		p := runtime("github.com/containerd/containerd/v2/cmd/"+name, takes)
		p.tags = "no_btrfs,no_zfs,no_devmapper"
		return p
	}
	return map[string]program{
		"kube-apiserver":          asset(kubernetes("kube-apiserver", "7 minutes")),
		"kubectl":                 asset(kubernetes("kubectl", "a minute")),
		"kube-controller-manager": kubernetes("kube-controller-manager", "3 minutes"),
		"kube-scheduler":          kubernetes("kube-scheduler", "a minute"),
		"kubelet":                 kubernetes("kubelet", "4 minutes"),
		"etcd":                    asset(runtime("go.etcd.io/etcd/server/v3", "a minute")),
		"containerd":              containerd("containerd", "2 minutes"),
		"containerd-shim-runc-v2": containerd("containerd-shim-runc-v2", "10 seconds"),
		"ctr":                     containerd("ctr", "10 seconds"),
		"bridge":                  runtime("github.com/containernetworking/plugins/plugins/main/bridge", "10 seconds"),
		"loopback":                runtime("github.com/containernetworking/plugins/plugins/main/loopback", "5 seconds"),
		"host-local":              runtime("github.com/containernetworking/plugins/plugins/ipam/host-local", "5 seconds"),
		// Without seccomp no sandbox starts; static, so that the machine that runs it needs no libseccomp.
		"runc": {
			module: "runtime", pkg: "github.com/opencontainers/runc", takes: "30 seconds", cgo: true,
			tags: "seccomp,netgo,osusergo", ldflags: "-s -w -X main.version=1.5.2 -extldflags -static",
		},
	}
}

// Node lists what a machine needs that runs pods, ControlPlane what one needs that rules them.
func Node() []string {
	return []string{"kubelet", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "bridge", "loopback", "host-local"}
}

// ControlPlane: see [Node].
func ControlPlane() []string {
	return []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"}
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
	if b.assets != "" && p.asset {
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
	fmt.Fprintln(sum, flags(), p.ldflags, p.tags, p.cgo, runtime.Version(), runtime.GOOS, runtime.GOARCH)
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
	cmd := exec.CommandContext(ctx, "go", append(args, "-tags", p.tags, "-ldflags", p.ldflags, "-o", partial, p.pkg)...)
	cmd.Dir = filepath.Join(b.source, p.module)
	// GOFLAGS of the caller could change the bytes behind the key's back.
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo(p), "GOFLAGS=", "GOWORK=off")
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

func cgo(p program) string {
	if p.cgo {
		return "1"
	}
	return "0"
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
