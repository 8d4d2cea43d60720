//go:build integration && linux

// Command registrar stands in for the CSI node-driver-registrar in the test cluster: it takes its arguments and registers a
// driver with kubelet.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"keymount/test/e2e/sidecars/sidecar"
)

func main() { os.Exit(sidecar.Main("registrar", run)) }

type options struct {
	csi, kubelet, folder string
	timeout              time.Duration
}

func run(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("registrar", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var opt options
	flags.StringVar(&opt.csi, "csi-address", "/run/csi/socket", "the driver's socket, as this container sees it")
	flags.StringVar(&opt.kubelet, "kubelet-registration-path", "", "the driver's socket, as kubelet sees it")
	flags.StringVar(&opt.folder, "plugin-registration-path", "/registration", "kubelet's folder of registration sockets, as this container sees it")
	flags.DurationVar(&opt.timeout, "timeout", time.Second, "how long one call of the driver may take")
	mode := flags.String("mode", "registration", `"kubelet-registration-probe" ends at once, and well, as the sidecar does by now`)
	flags.Int("v", 0, "no effect")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case *mode == "kubelet-registration-probe":
		return nil
	case opt.kubelet == "":
		return errors.New("--kubelet-registration-path is missing")
	}
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	name, err := driverName(ctx, log, opt)
	if ctx.Err() != nil {
		return nil // told to end before there was a driver
	}
	if err != nil {
		return err
	}
	return register(ctx, log, name, opt)
}

// driverName asks the driver until it answers: it may start after its sidecars.
func driverName(ctx context.Context, log *slog.Logger, opt options) (string, error) {
	conn, err := sidecar.Dial(opt.csi)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	for ctx.Err() == nil {
		once, cancel := context.WithTimeout(ctx, opt.timeout)
		info, err := csi.NewIdentityClient(conn).GetPluginInfo(once, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
		if err != nil {
			log.Info("the driver does not answer yet", "error", err.Error())
			<-once.Done() // not asked more often than that
		}
		cancel()
		switch {
		case err != nil:
		case info.GetName() == "" || strings.ContainsRune(info.GetName(), filepath.Separator):
			return "", fmt.Errorf("the driver calls itself %q, which is no name of a socket", info.GetName())
		default:
			return info.GetName(), nil
		}
	}
	return "", ctx.Err()
}

// register serves the registration until ctx ends, or until kubelet refuses the driver: then a new start of the container
// is the new attempt.
func register(ctx context.Context, log *slog.Logger, name string, opt options) error {
	path := filepath.Join(opt.folder, name+"-reg.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing an old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listening for kubelet: %w", err)
	}
	ctx, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)
	g := grpc.NewServer()
	registration.RegisterRegistrationServer(g, &plugin{log: log, refuse: refuse, info: &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              name,
		Endpoint:          opt.kubelet,
		SupportedVersions: []string{"1.0.0"},
	}})
	stop := context.AfterFunc(ctx, g.GracefulStop)
	defer stop()
	log.Info("serving", "socket", path)
	if err := g.Serve(l); err != nil {
		return fmt.Errorf("serving on %s: %w", path, err)
	}
	if refused := (refusal{}); errors.As(context.Cause(ctx), &refused) {
		return refused
	}
	return nil
}

type refusal struct{ why string }

func (r refusal) Error() string { return "kubelet refused the driver: " + r.why }

type plugin struct {
	registration.UnimplementedRegistrationServer
	log    *slog.Logger
	refuse context.CancelCauseFunc
	info   *registration.PluginInfo
}

func (p *plugin) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return p.info, nil
}

func (p *plugin) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	p.log.Info("kubelet answered", "registered", s.GetPluginRegistered(), "error", s.GetError())
	if !s.GetPluginRegistered() {
		p.refuse(refusal{s.GetError()})
	}
	return &registration.RegistrationStatusResponse{}, nil
}
