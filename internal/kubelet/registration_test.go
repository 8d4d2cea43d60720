//go:build !windows

package kubelet_test

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"keymount/internal/kubelet"
)

const driverName = "secrets-store.csi.k8s.io"

// A rig is a registration that runs on a clock of the test.
type rig struct {
	*testing.T
	dir, socket string
	readiness   *kubelet.Readiness
	log         syncBuffer

	armed  chan struct{}      // has an element for each time that the registration has begun to wait for its next look
	looks  chan time.Time     // an element makes it look for its socket
	pauses chan time.Duration // the pauses that it made
	resume chan time.Time     // an element ends a pause

	stop func() error
}

func register(t *testing.T) *rig {
	r := &rig{
		T: t, dir: socketDir(t), readiness: kubelet.NewReadiness(kubelet.Registered),
		armed: make(chan struct{}, 100), looks: make(chan time.Time), pauses: make(chan time.Duration, 100), resume: make(chan time.Time),
	}
	reg := kubelet.NewRegistration(kubelet.RegistrationConfig{
		Dir: r.dir, DriverName: driverName, KubeletPath: "/var/lib/kubelet/plugins/csi-secrets-store/csi.sock",
		Readiness: r.readiness, Log: slog.New(slog.NewTextHandler(&r.log, nil)),
	})
	r.socket = reg.Socket()
	reg.SetAfter(func(d time.Duration) <-chan time.Time {
		if d == kubelet.LookEvery {
			r.armed <- struct{}{}
			return r.looks
		}
		r.pauses <- d
		return r.resume
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- reg.Run(ctx) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { r.stop() })
	select {
	case <-r.armed:
	case err := <-ended:
		t.Fatal(err)
	}
	return r
}

// kubelet does what kubelet does when it sees the socket: it asks, and tells what came of it.
func (r *rig) kubelet(refusal string) *registerapi.PluginInfo {
	r.Helper()
	conn, err := grpc.NewClient("unix:"+r.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.Fatal(err)
	}
	defer conn.Close()
	c := registerapi.NewRegistrationClient(conn)
	info, err := c.GetInfo(r.Context(), &registerapi.InfoRequest{})
	if err != nil {
		r.Fatal(err)
	}
	_, err = c.NotifyRegistrationStatus(r.Context(), &registerapi.RegistrationStatus{PluginRegistered: refusal == "", Error: refusal})
	if err != nil {
		r.Fatal(err)
	}
	return info
}

func (r *rig) wantReady(ready bool, text string) {
	r.Helper()
	checks, got := r.readiness.Checks()
	if got != ready || !strings.Contains(checks[0].Text, text) {
		r.Fatalf("ready %v, %q; want %v, %q", got, checks[0].Text, ready, text)
	}
}

// look makes the registration look for its socket, and returns when it has done what follows from that.
func (r *rig) look() {
	r.looks <- time.Time{}
	<-r.armed
}

// settle returns when the registration has taken note of what kubelet said: among things that are due at once it picks
// any, so that it looks a few times before, at most.
func (r *rig) settle() {
	for range 64 {
		r.look()
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestRegistration(t *testing.T) {
	t.Attr("conformance", "12.8/registration")
	r := register(t)
	if want := filepath.Join(r.dir, driverName+"-reg.sock"); r.socket != want {
		t.Errorf("socket %s, want %s", r.socket, want)
	}
	if info, err := os.Lstat(r.socket); err != nil || info.Mode() != fs.ModeSocket|0o700 {
		t.Errorf("%v, %v", info, err)
	}
	r.wantReady(false, "kubelet has not called "+r.socket)
	info := r.kubelet("")
	if info.Type != "CSIPlugin" || info.Name != driverName || info.Endpoint != "/var/lib/kubelet/plugins/csi-secrets-store/csi.sock" ||
		len(info.SupportedVersions) != 1 || info.SupportedVersions[0] != "1.0.0" {
		t.Errorf("kubelet learnt %v", info)
	}
	r.wantReady(true, "kubelet has registered")
	r.look()
	r.kubelet("") // it has restarted
	r.wantReady(true, "kubelet has registered")
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(r.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A socket that somebody removed, as when kubelet's folder is cleared, is made anew.
func TestRegistrationSocketIsRemoved(t *testing.T) {
	r := register(t)
	r.kubelet("")
	if err := os.Remove(r.socket); err != nil {
		t.Fatal(err)
	}
	r.look()
	r.wantReady(false, "removed or replaced")
	r.kubelet("")
	r.wantReady(true, "")
}

// While the folder cannot take a socket, it is tried again, with growing pauses and the reason in the readiness.
func TestRegistrationFolderIsRemoved(t *testing.T) {
	r := register(t)
	r.kubelet("")
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	r.looks <- time.Time{}
	for want := time.Second; want <= 4*time.Second; want *= 2 {
		if pause := <-r.pauses; pause != want {
			t.Errorf("pause %v, want %v", pause, want)
		}
		r.wantReady(false, "no such file")
		if want == 4*time.Second {
			if err := os.Mkdir(r.dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		r.resume <- time.Time{}
	}
	<-r.armed
	r.kubelet("")
	r.wantReady(true, "")
	r.settle()
	r.kubelet("no")
	if pause := <-r.pauses; pause != time.Second {
		t.Errorf("pause %v after a success, want a second", pause)
	}
}

// After a refusal kubelet tries again by itself; when that does not help, it gets a new socket.
func TestRegistrationIsRefused(t *testing.T) {
	r := register(t)
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		before := filepath.Join(r.dir, "before") // keeps the number of the inode from being used again
		if err := os.Link(r.socket, before); err != nil {
			t.Fatal(err)
		}
		r.kubelet("no such\nnode")
		r.wantReady(false, "kubelet refused the driver: no such node")
		if pause := <-r.pauses; pause != want*time.Second {
			t.Errorf("pause %v, want %v", pause, want*time.Second)
		}
		r.kubelet(strings.Repeat("é", 1000)) // one pause is enough
		r.wantReady(false, "é...")
		r.resume <- time.Time{}
		<-r.armed
		old, _ := os.Lstat(before)
		if now, err := os.Lstat(r.socket); err != nil || os.SameFile(old, now) {
			t.Errorf("no new socket: %v", err)
		}
		os.Remove(before)
		r.wantReady(false, "kubelet did not register the driver")
	}
	if len(r.pauses) > 0 {
		t.Errorf("more pauses than refusals")
	}
	r.kubelet("no")
	<-r.pauses
	r.kubelet("")
	r.settle()
	r.wantReady(true, "")
	select {
	case r.resume <- time.Time{}:
		t.Error("it makes a new socket although kubelet has registered the driver")
	default:
	}
	if !strings.Contains(r.log.String(), `err="no such node"`) {
		t.Errorf("the refusal is not logged: %s", r.log.String())
	}
}

// Upstream's registrar may run while somebody changes over: two must not fight for the socket.
func TestRegistrationSocketIsTaken(t *testing.T) {
	r := register(t)
	r.kubelet("")
	if err := os.Remove(r.socket); err != nil {
		t.Fatal(err)
	}
	other, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	other.SetUnlinkOnClose(false)
	for range 2 {
		r.look()
		r.wantReady(false, "another process has taken "+r.socket)
	}
	if n := strings.Count(r.log.String(), "another process has taken"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
	other.Close() // its socket stays, dead
	r.look()
	r.kubelet("")
	r.wantReady(true, "")
}

func TestStopLeavesSocketOfAnother(t *testing.T) {
	r := register(t)
	if err := os.Remove(r.socket); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(r.socket); err != nil {
		t.Error(err)
	}
}

// A folder that is wrong from the start ends the process, in words that tell which flag is wrong.
func TestRegistrationFolderIsWrong(t *testing.T) {
	dir := socketDir(t)
	var taken string
	for name, dir := range map[string]string{"no folder": filepath.Join(dir, "none"), "no socket": dir} {
		reg := kubelet.NewRegistration(kubelet.RegistrationConfig{
			Dir: dir, DriverName: driverName, Readiness: kubelet.NewReadiness(), Log: discard,
		})
		if name == "no socket" {
			taken = reg.Socket()
			if err := os.WriteFile(taken, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := reg.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--registration-dir") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if text, err := os.ReadFile(taken); err != nil || string(text) != "precious" {
		t.Errorf("the file that was in the way holds %q, %v", text, err)
	}
}
