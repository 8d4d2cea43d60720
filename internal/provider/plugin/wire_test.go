package plugin_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
)

// fetch is a provider that is one function.
type fetch func(context.Context, *provider.Request) (*provider.Bundle, error)

func (f fetch) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	return f(ctx, req)
}

// foreign is somebody else's provider: one function of the protocol.
type foreign struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
	mount func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error)
}

func (f foreign) Mount(ctx context.Context, in *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	return f.mount(ctx, in)
}

// socketPath is short, since the path of a socket is at most 107 bytes and that of t.TempDir can be longer.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "km")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "p.sock")
}

// serve serves p with our server until the test ends or stop is called, which waits for the end.
func serve(t testing.TB, socket string, p provider.Provider, log io.Writer) (stop func()) {
	t.Helper()
	l, err := plugin.Listen("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	server := plugin.NewServer(p, plugin.Info{RuntimeName: "test", RuntimeVersion: "v0"}, logger)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, l) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serving ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// serveForeign serves mount with a bare gRPC server on a listener of its own. kill ends it with all calls.
func serveForeign(t testing.TB, socket string, mount func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error)) (kill func()) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // a stale socket stays, as after a crash
	g := grpc.NewServer()
	v1alpha1.RegisterCSIDriverProviderServer(g, foreign{mount: mount})
	ended := make(chan struct{})
	go func() { defer close(ended); g.Serve(l) }()
	kill = func() { g.Stop(); <-ended }
	t.Cleanup(kill)
	return kill
}

func client(t testing.TB, socket string) *plugin.Client {
	t.Helper()
	return clientOf(t, plugin.ClientConfig{Socket: socket, ConnectWithin: time.Minute})
}

func clientOf(t testing.TB, cfg plugin.ClientConfig) *plugin.Client {
	t.Helper()
	c := plugin.NewClient(cfg)
	t.Cleanup(func() { c.Close() })
	return c
}

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func request() *provider.Request {
	return &provider.Request{
		Pod:         provider.Pod{Namespace: "ns", Name: "pod", UID: "uid", ServiceAccount: "sa"},
		Parameters:  map[string]string{"keyvaultName": "v", "csi.storage.k8s.io/ephemeral": "true"},
		TargetPath:  "/target",
		DefaultMode: 0o644,
	}
}
