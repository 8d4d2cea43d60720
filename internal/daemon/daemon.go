// Package daemon is the node daemon: it joins the packages that serve a node, in the order in which they need one another,
// and stops them in the reverse order. It owns no decision about volumes; what it adds is the lock on the state folder, the
// share of memory that volumes may use, and the lines that are logged of each outcome. It may import every other package;
// only the program's main package imports it. Run is called once.
package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"path"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"keymount/internal/kubelet"
	"keymount/internal/logging"
	"keymount/internal/metrics"
	"keymount/internal/node"
)

// Run serves the node until ctx is done. It then takes no more calls, lets those in flight end within a bound, and returns
// nil. A part that cannot go on ends all of them: a driver that serves half of what it should must be seen to be gone.
func Run(ctx context.Context, cfg Config) error {
	hearClientGo(cfg.Log)
	keepToShare(os.DirFS(cgroupFolder))
	d, err := newDaemon(cfg)
	if err != nil {
		return err
	}
	defer d.folders.Close()
	serving, ctx := errgroup.WithContext(ctx)
	if cfg.NodeName == "" {
		cfg.Log.Warn("the driver has no node name, and kubelet refuses one without: give --nodeid")
	}
	if err := d.serveHTTP(ctx, serving); err != nil {
		return err
	}
	serving.Go(func() error { return d.serveNode(ctx) })
	return serving.Wait()
}

// serveNode waits for its turn on the node, serves, and registers once it does.
func (d *daemon) serveNode(ctx context.Context) error {
	st, err := d.openState(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped while another driver had the node
		}
		return err
	}
	d.state.Store(st)
	defer st.close()
	// What the calls in flight need runs until the last of them has ended.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.runHelpers(background) })
	group.Go(func() error {
		defer stop()
		return d.serveCSI(ctx, st)
	})
	return group.Wait()
}

// runHelpers runs what works beside the calls: watches, and writes that wait to be repeated.
func (d *daemon) runHelpers(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{d.classes.Run, d.tokens.Run, d.status.Run, d.events.Run, d.secrets.Run, d.folders.Run, d.adviser.Run} {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}

func (d *daemon) serveCSI(ctx context.Context, st *state) error {
	service := node.New(d.nodeConfig(st))
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(measured(d.metrics), node.Interceptor(d.cfg.Log, logging.LevelTrace)))
	csi.RegisterIdentityServer(server, service)
	csi.RegisterNodeServer(server, service)
	l, err := d.cfg.Endpoint.Listen()
	if err != nil {
		return fmt.Errorf("listening on the CSI socket: %w", err)
	}
	d.cfg.Log.Info("serving", "endpoint", d.cfg.Endpoint.String(), "driver", d.cfg.DriverName, "node", d.cfg.NodeName,
		"version", d.cfg.Build.Version, "volumes", len(st.registry.All()), "rotation", d.cfg.Rotation.Enabled)
	defer d.readiness.Unmet(kubelet.Serving, "stopped")
	group, ctx := errgroup.WithContext(ctx)
	// Kubelet is told that the driver leaves before the socket closes.
	accepting, stop := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error { return kubelet.Serve(accepting, l, server, kubelet.StopWithin) })
	group.Go(func() error {
		defer stop()
		return d.register(ctx)
	})
	err = group.Wait()
	d.cfg.Log.Info("stopped serving", "volumes", len(st.registry.All()))
	return err
}

// register makes the driver known once it serves, until ctx is done.
func (d *daemon) register(ctx context.Context) error {
	if err := kubelet.NewProber(d.cfg.Endpoint).Probe(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("the driver does not answer on its own socket: %w", err)
	}
	d.readiness.Met(kubelet.Serving, "serving on "+d.cfg.Endpoint.String())
	reg := d.cfg.Registration
	if reg == nil {
		<-ctx.Done()
		return nil
	}
	return kubelet.NewRegistration(kubelet.RegistrationConfig{
		Dir: reg.Dir, DriverName: d.cfg.DriverName, KubeletPath: reg.KubeletPath, Readiness: d.readiness, Log: d.cfg.Log,
	}).Run(ctx)
}

// measured counts the calls of kubelet.
func measured(m *metrics.Metrics) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		end := m.Call(path.Base(info.FullMethod))
		resp, err := handler(ctx, req)
		end(status.Code(err).String())
		return resp, err
	}
}

// serveHTTP starts the servers of the addresses that are set. They answer before it is this driver's turn, so that a driver
// that waits is seen to be alive, and not ready.
func (d *daemon) serveHTTP(ctx context.Context, group *errgroup.Group) error {
	for _, s := range []struct {
		flag, address string
		serve         func(context.Context, net.Listener) error
	}{
		{"--health-addr", d.cfg.HealthAddr, kubelet.NewHealth(kubelet.NewProber(d.cfg.Endpoint).Probe, d.readiness, d.cfg.Log).Serve},
		{"--metrics-addr", d.cfg.MetricsAddr, d.serveMetrics},
		{"--pprof-port", d.cfg.PprofAddr, d.servePprof},
	} {
		if s.address == "" || s.address == "0" { // what controller-runtime takes for "off"
			continue
		}
		l, err := net.Listen("tcp", s.address)
		if err != nil {
			return fmt.Errorf("%s: %w", s.flag, err)
		}
		group.Go(func() error { return s.serve(ctx, l) })
	}
	return nil
}
