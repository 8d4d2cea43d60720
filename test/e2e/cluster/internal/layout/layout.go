//go:build integration && linux

// Package layout names what a cluster has: the files of its folder, its addresses, its control groups. Every other package
// asks here, so that whoever cleans up after a cluster knows what there is without having made it.
//
// It imports nothing but the standard library. Its values are plain and may be used concurrently.
package layout

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ControlPlane is the machine that rules the cluster; it runs no pods.
const ControlPlane = "cp"

// Addresses of the cluster. All of them are inside network namespaces of its own.
const (
	GatewayIP  = "10.200.0.1" // of cp on the network of the machines: DNS, and what a test listens on
	APIServer  = "10.96.0.1"  // of the Service "kubernetes", the first of controlplane.ServiceNet; kube-apiserver itself listens there
	APIAddress = APIServer + ":443"
	PodNet     = "10.244.0.0/16"
	Domain     = "cluster.local"
)

// MaxNodes is bounded by the addresses of the machines' network, and by sense.
const MaxNodes = 20

// NodeName is the name of node i, counted from 1, NodeIP its address, and PodRange the addresses of its pods.
func NodeName(i int) string { return fmt.Sprintf("n%d", i) }

// NodeIP: see [NodeName].
func NodeIP(i int) string { return fmt.Sprintf("10.200.0.%d", 10+i) }

// PodRange: see [NodeName].
func PodRange(i int) string { return fmt.Sprintf("10.244.%d.0/24", i) }

// A Dir is the folder of one cluster: an absolute path without symbolic links.
type Dir string

const marker = ".keymount-cluster"

// hidden are folders that a machine has of its own, so that a cluster's folder below one of them would be out of its sight.
var hidden = [...]string{"/proc", "/sys", "/run", "/var/run", "/etc", "/dev"}

// Find makes a Dir of a path, which need not exist.
func Find(path string) (Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("finding the cluster's folder %s: %w", path, err)
	}
	// The part that exists may be reached through links; two names of one folder must be one cluster.
	rest := ""
	for at := abs; ; at = filepath.Dir(at) {
		real, err := filepath.EvalSymlinks(at)
		if err == nil {
			return Dir(filepath.Join(real, rest)), nil
		}
		if !errors.Is(err, os.ErrNotExist) || at == "/" {
			return "", fmt.Errorf("finding the cluster's folder %s: %w", path, err)
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}

// Claim makes the folder, or takes one that was a cluster's before. A folder with other things in it is refused: stopping a
// cluster removes files by their names.
func (d Dir) Claim() error {
	for _, dir := range hidden {
		if string(d) == dir || strings.HasPrefix(string(d), dir+"/") {
			return fmt.Errorf("using %s for a cluster: its machines have a %s of their own; choose another folder with --dir", d, dir)
		}
	}
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return fmt.Errorf("making the cluster's folder: %w", err)
	}
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return fmt.Errorf("reading the cluster's folder: %w", err)
	}
	claimed := slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == marker })
	if len(entries) > 0 && !claimed {
		return fmt.Errorf("using %s for a cluster: it holds other files, %s for one; choose an empty or a new folder with --dir", d, entries[0].Name())
	}
	if err := os.WriteFile(d.Path(marker), []byte("A folder of go run ./test/e2e/cluster\n"), 0o644); err != nil {
		return fmt.Errorf("marking the cluster's folder: %w", err)
	}
	return nil
}

// ErrForeign means that a folder was never a cluster's.
var ErrForeign = errors.New("it holds other files and was never a cluster's")

// Check refuses a folder that Claim has not marked, unless there is nothing in it: what a cluster removes by its name may be somebody
// else's there.
func (d Dir) Check() error {
	entries, err := os.ReadDir(string(d))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the cluster's folder: %w", err)
	}
	if len(entries) == 0 || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == marker }) {
		return nil
	}
	return fmt.Errorf("removing a cluster from %s: %w; name another with --dir", d, ErrForeign)
}

// Path joins a path below the folder.
func (d Dir) Path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// Files of the folder. Of these the logs outlive the cluster.
func (d Dir) Kubeconfig() string       { return d.Path("kubeconfig") }
func (d Dir) KubeconfigInside() string { return d.Path("kubeconfig-inside") }
func (d Dir) CACert() string           { return d.Path("ca.crt") }
func (d Dir) Hosts() string            { return d.Path("hosts") }
func (d Dir) Socket() string           { return d.Path("control.sock") }
func (d Dir) Plan() string             { return d.Path("plan.json") }
func (d Dir) Images() string           { return d.Path("images") }
func (d Dir) Logs() string             { return d.Path("logs") }
func (d Dir) KeeperLog() string        { return d.Path("logs", "keeper.log") }
func (d Dir) AuditLog() string         { return d.Path("logs", ControlPlane, "audit.log") }

// Log is where a component of a machine writes.
func (d Dir) Log(machine, component string) string { return d.Path("logs", machine, component+".log") }

// Machine is the folder of what a machine has on its disk.
func (d Dir) Machine(name string, elem ...string) string {
	return d.Path(append([]string{"machines", name}, elem...)...)
}

// Data lists what the end of a cluster removes.
func (d Dir) Data() []string {
	return []string{d.Socket(), d.Kubeconfig(), d.KubeconfigInside(), d.CACert(), d.Hosts(), d.Plan(), d.Images(), d.Path("machines")}
}

// Cgroup is the name of the cluster's control groups, one in each hierarchy. It follows from the folder alone.
func (d Dir) Cgroup() string {
	sum := sha256.Sum256([]byte(d))
	return "keymount-cluster-" + hex.EncodeToString(sum[:])[:12]
}
