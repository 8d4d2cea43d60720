//go:build integration && linux

package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"

	"keymount/test/e2e/launch"
	"keymount/test/integration/kubelet"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"registrar": main})
}

// A driver is as much of one as kubelet asks about when it is registered.
type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	name, node string
}

func (d driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name}, nil
}

func (d driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

func (d driver) serve(t *testing.T, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	csi.RegisterIdentityServer(g, d)
	csi.RegisterNodeServer(g, d)
	go g.Serve(l)
	t.Cleanup(g.Stop)
}

// stage is where driver, registrar and kubelet meet.
type stage struct{ driver, folder string }

func newStage(t *testing.T) stage {
	t.Helper()
	dir := t.TempDir()
	s := stage{filepath.Join(dir, "csi.sock"), filepath.Join(dir, "registration")}
	if err := os.Mkdir(s.folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s stage) start(t *testing.T) *launch.Process {
	t.Helper()
	return launch.Start(t, "registrar", "--v=5", "--csi-address="+s.driver, "--kubelet-registration-path="+s.driver,
		"--plugin-registration-path="+s.folder, "--timeout=100ms")
}

func TestRegisters(t *testing.T) {
	s := newStage(t)
	socket := filepath.Join(s.folder, "driver.example-reg.sock")
	if err := os.WriteFile(socket, nil, 0o600); err != nil { // left from before
		t.Fatal(err)
	}
	p := s.start(t)
	driver{name: "driver.example", node: "n1"}.serve(t, s.driver) // after its sidecar
	k := kubelet.New(t.TempDir(), "n1", nil)
	name, err := k.Register(t.Context(), s.folder)
	if err != nil {
		t.Fatal(err, p.Running())
	}
	if name != "driver.example" || k.Drivers()[name] != s.driver {
		t.Errorf("registered %q: %v", name, k.Drivers())
	}
	if err := p.Running(); err != nil {
		t.Error(err)
	}
	p.Term(t)
	if code, said := p.Wait(t); code != 0 || !strings.Contains(said, `"registered":true`) {
		t.Errorf("it ended with %d and said %q", code, said)
	}
	if _, err := os.Lstat(socket); err == nil {
		t.Error("it left its socket, and kubelet would go on asking")
	}
}

// kubelet asks once for a socket; who is refused must make a new one.
func TestEndsWhenKubeletRefuses(t *testing.T) {
	s := newStage(t)
	driver{name: "driver.example"}.serve(t, s.driver) // no node id
	p := s.start(t)
	k := kubelet.New(t.TempDir(), "n1", nil)
	ctx, cancel := context.WithCancel(t.Context())
	registered := make(chan error, 1)
	go func() {
		_, err := k.Register(ctx, s.folder)
		registered <- err
	}()
	code, said := p.Wait(t)
	cancel()
	if err := <-registered; err == nil {
		t.Error("kubelet took a driver without a node id")
	}
	if code != 1 || !strings.Contains(said, "kubelet refused the driver: RegisterPlugin error -- plugin registration failed") {
		t.Errorf("it ended with %d and said %q", code, said)
	}
}

func TestCommandLine(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"probe", []string{"--kubelet-registration-path=/x/csi.sock", "--mode=kubelet-registration-probe"}, 0, ""},
		{"no path", []string{"--csi-address=/csi/csi.sock"}, 1, "--kubelet-registration-path is missing"},
		{"unknown flag", []string{"--other"}, 1, "not defined: -other"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if code, said := launch.Start(t, "registrar", tc.args...).Wait(t); code != tc.code || !strings.Contains(said, tc.want) {
				t.Errorf("it ended with %d and said %q", code, said)
			}
		})
	}
}

func TestEndsWithoutADriver(t *testing.T) {
	s := newStage(t)
	l, err := net.Listen("unix", s.driver)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := s.start(t)
	conn, err := l.Accept() // it asks, and gets no answer
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.Term(t)
	if code, said := p.Wait(t); code != 0 {
		t.Errorf("it ended with %d and said %q", code, said)
	}
}
