package plugin_test

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider/plugin"
)

// connections counts those of a server that have spoken.
type connections struct {
	stats.Handler
	mu    sync.Mutex
	open  int
	most  int
	ended chan struct{}
}

func (c *connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c *connections) HandleRPC(context.Context, stats.RPCStats)                         {}
func (c *connections) HandleConn(_ context.Context, s stats.ConnStats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch s.(type) {
	case *stats.ConnBegin:
		c.open++
		c.most = max(c.most, c.open)
	case *stats.ConnEnd:
		c.open--
		if c.open == 0 {
			c.ended <- struct{}{}
		}
	}
}

// serveService serves any implementation of the protocol.
func serveService(t testing.TB, socket string, s v1alpha1.CSIDriverProviderServer, opts ...grpc.ServerOption) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(opts...)
	v1alpha1.RegisterCSIDriverProviderServer(g, s)
	ended := make(chan struct{})
	go func() { defer close(ended); g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-ended })
}

// Many calls at once share a connection, which ends when nobody has used it for long; health checks are no use.
func TestConnectionsAreSharedAndEnd(t *testing.T) {
	a := folder(t)
	conns := &connections{ended: make(chan struct{}, 100)}
	serveService(t, filepath.Join(a, "p.sock"), &versioned{foreign: foreign{mount: answering("1")}}, grpc.StatsHandler(conns))
	var mu sync.Mutex
	now := time.Unix(1e9, 0)
	f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a}, IdleAfter: time.Minute, Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}})
	pass := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			if _, err := askFor(t, f, "p"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := f.Connections(); n != 1 {
		t.Errorf("there are %d connections", n)
	}
	pass(59 * time.Second)
	f.CloseIdle()
	if n := f.Connections(); n != 1 {
		t.Fatalf("there are %d connections", n)
	}
	f.CheckHealth(deadline(t))
	if len(f.Health()) != 1 {
		t.Errorf("health %v", f.Health())
	}
	pass(time.Second)
	f.CloseIdle()
	if n := f.Connections(); n != 0 || len(f.Health()) != 0 {
		t.Fatalf("there are %d connections, health %v", n, f.Health())
	}
	for open := 1; open > 0; {
		<-conns.ended
		conns.mu.Lock()
		open = conns.open
		conns.mu.Unlock()
	}
	if _, err := askFor(t, f, "p"); err != nil {
		t.Error(err)
	}
}

// A call that takes longer than connections are kept keeps its own.
func TestConnectionInUseIsNotIdle(t *testing.T) {
	a := folder(t)
	called, release := make(chan struct{}), make(chan struct{})
	serveForeign(t, filepath.Join(a, "p.sock"), func(ctx context.Context, r *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		close(called)
		<-release
		return answering("1")(ctx, r)
	})
	f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a}, IdleAfter: 1})
	ended := make(chan error, 1)
	go func() {
		_, err := askFor(t, f, "p")
		ended <- err
	}()
	<-called
	f.CloseIdle()
	close(release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	f.CloseIdle()
	if n := f.Connections(); n != 0 {
		t.Errorf("there are %d connections", n)
	}
}

// Calls, checks and the closing of connections that were idle for no time at all do not get into each other's way.
func TestEverythingAtOnce(t *testing.T) {
	a := folder(t)
	names := []string{"p", "q"}
	for _, name := range names {
		serveService(t, filepath.Join(a, name+".sock"), &versioned{foreign: foreign{mount: answering(name)}})
	}
	f := foldersOf(t, plugin.FoldersConfig{Folders: []string{folder(t), a}, IdleAfter: 1})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 20 {
				name := names[i%2]
				if got, err := askFor(t, f, name); got != name {
					t.Errorf("got %q, %v", got, err)
				}
				f.CloseIdle()
				f.CheckHealth(t.Context())
				for name, healthy := range f.Health() {
					if !healthy {
						t.Errorf("%s is not healthy", name)
					}
				}
			}
		})
	}
	all.Wait()
	f.CloseIdle()
	if n := f.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}
