//go:build !windows

package kubelet_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"keymount/internal/kubelet"
	"keymount/internal/socket"
)

// An identity answers Probe with a function.
type identity struct {
	probe func(context.Context) (*csi.ProbeResponse, error)

	csi.UnimplementedIdentityServer
}

func (i identity) Probe(ctx context.Context, _ *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return i.probe(ctx)
}

func driver(probe func(context.Context) (*csi.ProbeResponse, error)) *grpc.Server {
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, identity{probe: probe})
	return server
}

// start listens and serves; the channel gets what Serve returns.
func start(t testing.TB, ctx context.Context, e socket.Endpoint, server *grpc.Server, stopWithin time.Duration) (net.Listener, <-chan error) {
	t.Helper()
	l, err := e.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- kubelet.Serve(ctx, l, server, stopWithin) }()
	return l, ended
}

func client(t testing.TB, e socket.Endpoint) csi.IdentityClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+strings.TrimPrefix(e.String(), "unix://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return csi.NewIdentityClient(conn)
}

// A call in flight may finish; whoever hangs is cut off at the bound.
func TestServeStops(t *testing.T) {
	for _, tc := range []struct {
		name       string
		stopWithin time.Duration
		hangs      bool
		want       codes.Code
	}{
		{"gracefully", time.Minute, false, codes.OK},
		{"at the bound", time.Millisecond, true, codes.Unavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			called, release := make(chan struct{}), make(chan struct{})
			e := endpoint(t, "unix://"+filepath.Join(socketDir(t), "c.sock"))
			l, ended := start(t, ctx, e, driver(func(ctx context.Context) (*csi.ProbeResponse, error) {
				close(called)
				<-release
				return &csi.ProbeResponse{}, ctx.Err()
			}), tc.stopWithin)
			answered := make(chan error, 1)
			go func() {
				_, err := client(t, e).Probe(t.Context(), &csi.ProbeRequest{})
				answered <- err
			}()
			<-called
			cancel()
			for err := error(nil); err == nil; _, err = os.Lstat(l.Addr().String()) {
				runtime.Gosched() // until it takes no more calls
			}
			if tc.hangs {
				defer close(release)
			} else {
				close(release)
			}
			if err := <-answered; status.Code(err) != tc.want {
				t.Errorf("the call got %v, want %v", err, tc.want)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// A server that ends by itself is an error: the process must not stay without one.
func TestServeFails(t *testing.T) {
	for name, end := range map[string]func(net.Listener, *grpc.Server){
		"the listener fails":     func(l net.Listener, _ *grpc.Server) { l.Close() },
		"somebody else stops it": func(_ net.Listener, s *grpc.Server) { s.Stop() },
	} {
		t.Run(name, func(t *testing.T) {
			e := endpoint(t, "unix://"+filepath.Join(socketDir(t), "c.sock"))
			server := driver(func(context.Context) (*csi.ProbeResponse, error) { return &csi.ProbeResponse{}, nil })
			l, ended := start(t, t.Context(), e, server, time.Second)
			if err := kubelet.NewProber(e).Probe(t.Context()); err != nil {
				t.Fatal(err)
			}
			end(l, server)
			if err := <-ended; err == nil || !strings.Contains(err.Error(), "serving on /") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func endpoint(t testing.TB, text string) socket.Endpoint {
	t.Helper()
	e, err := socket.ParseEndpoint(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// socketDir returns a folder whose path is short enough for sockets.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "km")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
