//go:build integration && linux

// Package driver runs keymount-driver as a process for integration tests: built with the race detector unless a measurement
// wants it as released, against a real API server, with exactly the rights of its service account, in folders of its own.
//
// It knows the driver by its flags, sockets and HTTP servers only, and imports none of its packages. A Driver belongs to one
// test; its methods are called from that test's goroutine, but for Log.
package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"keymount/test/integration/apiserver"
	"keymount/test/integration/await"
)

// Namespace and ServiceAccount are those of deploy/rbac.
const (
	Namespace      = "kube-system"
	ServiceAccount = "secrets-store-csi-driver"
	Node           = "node-1"
	Name           = "secrets-store.csi.k8s.io"
)

// patience bounds the wait for the process to do what it should; nothing is measured against it.
const patience = 60 * time.Second

// Options change how a driver is started.
type Options struct {
	// Args are added to the usual ones; a flag that stands twice has its last value.
	Args []string
	// Upstream leaves out every flag that upstream does not have: no health server, no registration.
	Upstream bool
	// Env is added to the environment.
	Env []string
	// Account is the service account, with its namespace kube-system; "" means ServiceAccount.
	Account string
	// Plain runs the program as it is released, without the race detector: for measurements, not for tests.
	Plain bool
}

// A Driver is a node's driver with the folders of that node, which outlive its processes.
type Driver struct {
	// Root is the node's folder; Kubelet, Providers, State and Registration are below it.
	Root, Kubelet, Providers, MoreProviders, State, Registration string
	// Endpoint is the path of the CSI socket.
	Endpoint string

	t       testing.TB
	opt     Options
	server  *apiserver.Server
	health  string // host:port
	metrics string
	config  string // kubeconfig

	mu    sync.Mutex
	log   bytes.Buffer
	cmd   *exec.Cmd
	ended chan struct{}
}

// checked and plain are the program with and without the race detector. Each is built once per test process; the go
// command's cache does the rest.
var (
	checked = sync.OnceValues(func() (string, error) { return build(nil, "-race") })
	plain   = sync.OnceValues(func() (string, error) {
		return build([]string{"CGO_ENABLED=0"}, "-trimpath", "-buildvcs=false", "-ldflags=-s -w")
	})
	// built is the folder of both.
	built = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "keymount-driver-") })
)

func build(env []string, flags ...string) (string, error) {
	dir, err := built()
	if err != nil {
		return "", err
	}
	// A test of another module builds the driver with this module's dependencies too.
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "keymount").Output()
	if err != nil {
		return "", fmt.Errorf("finding the module of keymount-driver: %w", err)
	}
	out := filepath.Join(dir, "keymount-driver"+flags[0])
	cmd := exec.Command("go", append(append([]string{"build", "-o", out}, flags...), "./cmd/keymount-driver")...)
	cmd.Dir, cmd.Env = strings.TrimSpace(string(module)), append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building keymount-driver: %w\n%s", err, text)
	}
	return out, nil
}

// RemoveBinary removes what was built; for the end of TestMain.
func RemoveBinary() {
	if dir, err := built(); err == nil {
		os.RemoveAll(dir)
	}
}

// New makes a node for a driver. The API server must have the definitions and the rights applied.
func New(t testing.TB, server *apiserver.Server, opt Options) *Driver {
	t.Helper()
	if opt.Account == "" {
		opt.Account = ServiceAccount
	}
	root := t.TempDir()
	d := &Driver{
		t: t, opt: opt, server: server, Root: root,
		Kubelet: filepath.Join(root, "kubelet"), State: filepath.Join(root, "plugin"),
		Providers: filepath.Join(root, "run"), MoreProviders: filepath.Join(root, "etc"),
		Registration: filepath.Join(root, "registry"),
		Endpoint:     filepath.Join(root, "plugin", "csi.sock"),
		health:       freePort(t), metrics: freePort(t),
		config: server.Kubeconfig(t, Namespace, opt.Account),
	}
	for _, dir := range []string{d.Kubelet, d.State, d.Providers, d.MoreProviders, d.Registration} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(d.end)
	return d
}

// Start makes a node and starts its driver.
func Start(t testing.TB, server *apiserver.Server, opt Options) *Driver {
	t.Helper()
	d := New(t, server, opt)
	d.Start()
	return d
}

// freePort returns an address on loopback that nobody listens on at this moment.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Args are the arguments of a process.
func (d *Driver) Args() []string {
	args := []string{
		"--endpoint=unix://" + d.Endpoint, "--nodeid=" + Node, "--drivername=" + Name, "--kubeconfig=" + d.config,
		"--provider-volume=" + d.Providers, "--additional-provider-volume-paths=" + d.MoreProviders,
		"--metrics-addr=" + d.metrics, "-v=5",
	}
	if !d.opt.Upstream {
		args = append(args, "--health-addr="+d.health, "--registration-dir="+d.Registration, "--kubelet-registration-path="+d.Endpoint)
	}
	return append(args, d.opt.Args...)
}

// Start starts a process and returns when it answers on its CSI socket.
func (d *Driver) Start() {
	d.t.Helper()
	d.Launch()
	d.AwaitServing()
}

// Launch starts a process and does not wait for it.
func (d *Driver) Launch() {
	d.t.Helper()
	program := checked
	if d.opt.Plain {
		program = plain
	}
	path, err := program()
	if err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.Command(path, d.Args()...)
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), d.opt.Env...)
	w := &lockedWriter{d}
	cmd.Stdout, cmd.Stderr = w, w
	// The process ends with the test. The kernel looks at the thread that started it, so that must not end before.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	ended := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		d.t.Fatal(err)
	}
	d.cmd, d.ended = cmd, ended
}

type lockedWriter struct{ d *Driver }

func (w *lockedWriter) Write(b []byte) (int, error) {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	return w.d.log.Write(b)
}

// AwaitServing returns when the process answers on its CSI socket.
func (d *Driver) AwaitServing() {
	d.t.Helper()
	d.Await("the driver to serve", func(ctx context.Context) error {
		select {
		case <-d.ended:
			return await.Never(errors.New("it ended"))
		default:
		}
		conn, err := net.Dial("unix", d.Endpoint)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// Await asks until ask has no error.
func (d *Driver) Await(what string, ask func(ctx context.Context) error) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	if err := await.For(ctx, what, ask); err != nil {
		d.t.Fatal(err)
	}
}

// PID is the process's.
func (d *Driver) PID() int { return d.cmd.Process.Pid }

// Running says whether the process has not ended.
func (d *Driver) Running() bool {
	if d.cmd == nil {
		return false
	}
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// Kill ends the process as the kernel's OOM killer does, and returns when it is gone.
func (d *Driver) Kill() {
	d.cmd.Process.Kill()
	<-d.ended
}

// Stop ends the process as kubelet does, and fails the test if it does not end, or not well.
func (d *Driver) Stop() {
	d.t.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	d.AwaitEnd()
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		d.t.Errorf("the driver ended with code %d", code)
	}
}

// AwaitEnd returns when the process has ended.
func (d *Driver) AwaitEnd() {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(patience):
		d.t.Fatal("the driver does not end")
	}
}

// Restart ends the process well and starts another.
func (d *Driver) Restart() {
	d.t.Helper()
	d.Stop()
	d.Start()
}

// Log is what all processes have written so far.
func (d *Driver) Log() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

// Get asks one of the HTTP servers: "healthz", "readyz", "metrics".
func (d *Driver) Get(path string) (code int, body string, err error) {
	address := d.health
	if path == "metrics" {
		address = d.metrics
	}
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + address + "/" + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// Dial connects to the CSI socket until the test ends.
func (d *Driver) Dial() *grpc.ClientConn {
	d.t.Helper()
	conn, err := grpc.NewClient("unix:"+d.Endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	return conn
}

// end ends the process and takes away what it mounted.
func (d *Driver) end() {
	if d.Running() {
		d.Kill()
	}
	log := d.Log()
	if strings.Contains(log, "DATA RACE") {
		d.t.Error("the driver has a data race")
	}
	if d.t.Failed() {
		d.t.Logf("log of the driver:\n%s", log)
	}
	for _, target := range Mounts(d.Root) {
		syscall.Unmount(target, syscall.MNT_DETACH)
	}
}

// Mounts lists what is mounted below a folder, the last mounted first.
func Mounts(below string) []string {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		panic(err) // Linux has it
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		if point := strings.Fields(line)[4]; strings.HasPrefix(point, below+"/") {
			points = append([]string{point}, points...)
		}
	}
	return points
}
