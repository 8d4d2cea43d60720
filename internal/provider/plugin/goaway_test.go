package plugin

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"keymount/api/provider/v1alpha1"
)

// hanging answers nothing before it is let go.
type hanging struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
	called, release chan struct{}
}

func (h hanging) Mount(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	close(h.called)
	<-h.release
	return &v1alpha1.MountResponse{}, nil
}

// A server that stops gracefully gives up a connection before it closes it: a call that fails in between never reached it,
// and is to be made again.
func TestCallOnAConnectionGivenUpIsLost(t *testing.T) {
	dir, err := os.MkdirTemp("", "km")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "p.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	h := hanging{called: make(chan struct{}), release: make(chan struct{})}
	g := grpc.NewServer()
	v1alpha1.RegisterCSIDriverProviderServer(g, h)
	go g.Serve(listener)
	c := NewClient(ClientConfig{Socket: socket})
	t.Cleanup(func() { c.Close() })

	drops := c.links.drops.Load()
	l, err := c.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := make(chan error, 1)
	go func() {
		_, err := l.provider.Mount(t.Context(), &v1alpha1.MountRequest{})
		first <- err
	}()
	<-h.called
	stopped := make(chan struct{})
	go func() { defer close(stopped); g.GracefulStop() }()
	for l.conn.GetState() == connectivity.Ready {
		l.conn.WaitForStateChange(t.Context(), connectivity.Ready)
	}
	if l.open.Load() != 1 || c.links.drops.Load() != drops {
		t.Fatal("the connection is closed already: this test shows nothing")
	}
	lost, err := c.use(t.Context(), l, drops, func(context.Context, v1alpha1.CSIDriverProviderClient) error {
		return status.Error(codes.Unavailable, "connection error")
	})
	if !lost || err == nil {
		t.Errorf("lost: %v, %v", lost, err)
	}
	close(h.release)
	if err := <-first; err != nil {
		t.Errorf("the call that was under way: %v", err)
	}
	<-stopped
}
