package kubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"keymount/internal/provider"
	"keymount/internal/socket"
)

const (
	// lookEvery is how often the socket is looked for: somebody may clear kubelet's folder.
	lookEvery = 5 * time.Second
	// The socket is bound anew after a registration that failed, and bound again after that has failed, with a pause.
	firstPause, longestPause = time.Second, time.Minute
	// registrationStopWithin bounds the end of the registration server, whose calls wait for nothing.
	registrationStopWithin = 2 * time.Second
	// maxReason bounds what is repeated of kubelet's words.
	maxReason = 1024
)

// RegistrationConfig says what is registered, and where.
type RegistrationConfig struct {
	// Dir is kubelet's folder for registration sockets, such as /var/lib/kubelet/plugins_registry, as this process sees it.
	Dir string
	// DriverName is the name of the CSI driver.
	DriverName string
	// KubeletPath is the CSI socket as kubelet sees it.
	KubeletPath string
	// Readiness is told whether kubelet has taken the driver in (Registered).
	Readiness *Readiness
	Log       *slog.Logger
}

// A Registration makes the driver known to kubelet: kubelet watches a folder, calls what it finds there, and does so again
// when it restarts.
type Registration struct {
	cfg   RegistrationConfig
	after func(time.Duration) <-chan time.Time // time.After; tests have a clock of their own
	taken atomic.Bool                          // what kubelet said last
	told  chan struct{}                        // has one element when it has said something

	registerapi.UnimplementedRegistrationServer
}

// NewRegistration returns a registration that Run performs.
func NewRegistration(cfg RegistrationConfig) *Registration {
	return &Registration{cfg: cfg, after: time.After, told: make(chan struct{}, 1)}
}

// Socket returns the path of the registration socket, which kubelet's users know.
func (r *Registration) Socket() string {
	return filepath.Join(r.cfg.Dir, r.cfg.DriverName+"-reg.sock")
}

// Run keeps the driver registered until ctx is done, and then removes the socket, so that kubelet forgets the driver. The
// CSI socket must answer already. A socket that cannot be made at first is an error, since the folder is wrong then;
// what happens later is logged, shows in the readiness and is tried again: a socket that is gone, a registration that
// kubelet refused.
func (r *Registration) Run(ctx context.Context) error {
	l, err := socket.ListenUnix(r.Socket())
	if err != nil {
		return fmt.Errorf("making the registration socket: %w (is --registration-dir kubelet's plugins_registry folder?)", err)
	}
	pause := firstPause
	r.cfg.Readiness.Unmet(Registered, "kubelet has not called "+r.Socket()+" yet")
	for l != nil {
		r.cfg.Log.Info("waiting for kubelet to register the driver", "socket", r.Socket())
		err := r.serve(ctx, l, &pause)
		if err == nil {
			return nil
		}
		l = r.bindAnew(ctx, err, &pause)
	}
	return nil
}

// bindAnew makes the socket again after it was lost to cause. It tries until it has it, or returns nil when ctx is done.
func (r *Registration) bindAnew(ctx context.Context, cause error, pause *time.Duration) *socket.UnixListener {
	for {
		r.cfg.Log.Warn("registering with kubelet anew", "socket", r.Socket(), "err", cause.Error())
		l, err := socket.ListenUnix(r.Socket())
		if err == nil {
			r.cfg.Readiness.Unmet(Registered, cause.Error()+"; kubelet has not called "+r.Socket()+" since")
			return l
		}
		cause = fmt.Errorf("making the registration socket: %w", err)
		r.cfg.Readiness.Unmet(Registered, cause.Error())
		select {
		case <-ctx.Done():
			return nil
		case <-r.after(next(pause)):
		}
	}
}

// next returns the pause and doubles it for the time after.
func next(pause *time.Duration) time.Duration {
	now := *pause
	*pause = min(2*now, longestPause)
	return now
}

// serve answers kubelet on l, which it closes. It returns nil when ctx is done, and an error when the socket must be made
// anew.
func (r *Registration) serve(ctx context.Context, l *socket.UnixListener, pause *time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64<<10), grpc.MaxConcurrentStreams(16))
	registerapi.RegisterRegistrationServer(server, r)
	select {
	case <-r.told: // about the former socket
	default:
	}
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, server, registrationStopWithin) }()
	stop := func(cause error) error {
		cancel()
		<-ended
		return cause
	}
	look := r.after(lookEvery)
	var again <-chan time.Time // set from a refusal on, until kubelet has changed its mind
	displaced := false
	for {
		select {
		case err := <-ended:
			return err
		case <-look:
			was := displaced
			var err error
			if displaced, err = r.look(l); err != nil {
				return stop(err)
			}
			if displaced && !was {
				r.cfg.Log.Warn("another process has taken the registration socket", "socket", r.Socket())
			}
			look = r.after(lookEvery)
		case <-r.told:
			// Kubelet tries again by itself, on this socket: a new one is for when that does not help.
			switch taken := r.taken.Load(); {
			case taken:
				again, *pause = nil, firstPause
			case again == nil:
				again = r.after(next(pause))
			}
		case <-again:
			return stop(errors.New("kubelet did not register the driver"))
		}
	}
}

// look looks whether the socket is where kubelet finds it. If another process serves there now, kubelet has registered
// that one: there is nothing to do but to say so and wait until it is gone. Everything else is an error.
func (r *Registration) look(l *socket.UnixListener) (displaced bool, err error) {
	if l.InPlace() {
		return false, nil
	}
	conn, err := net.DialTimeout("unix", r.Socket(), time.Second)
	if err != nil {
		return false, errors.New("the registration socket was removed or replaced")
	}
	conn.Close()
	r.cfg.Readiness.Unmet(Registered, "another process has taken "+r.Socket())
	return true, nil
}

// GetInfo implements registerapi.RegistrationServer: kubelet asks who is there.
func (r *Registration) GetInfo(ctx context.Context, _ *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	r.cfg.Log.DebugContext(ctx, "kubelet asked who is there")
	return &registerapi.PluginInfo{
		Type: registerapi.CSIPlugin, Name: r.cfg.DriverName, Endpoint: r.cfg.KubeletPath,
		SupportedVersions: []string{"1.0.0"}, // of CSI; kubelet wants any 1.x
	}, nil
}

// NotifyRegistrationStatus implements registerapi.RegistrationServer: kubelet tells what became of it.
func (r *Registration) NotifyRegistrationStatus(ctx context.Context, s *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	r.taken.Store(s.GetPluginRegistered())
	if s.GetPluginRegistered() {
		r.cfg.Readiness.Met(Registered, "kubelet has registered "+r.cfg.DriverName)
		r.cfg.Log.InfoContext(ctx, "kubelet has registered the driver", "driver", r.cfg.DriverName, "endpoint", r.cfg.KubeletPath)
	} else {
		why := provider.OneLine(s.GetError(), maxReason)
		r.cfg.Readiness.Unmet(Registered, "kubelet refused the driver: "+why)
		r.cfg.Log.WarnContext(ctx, "kubelet refused the driver", "driver", r.cfg.DriverName, "endpoint", r.cfg.KubeletPath, "err", why)
	}
	select {
	case r.told <- struct{}{}:
	default: // the last is not read yet: what is read then is this
	}
	return &registerapi.RegistrationStatusResponse{}, nil
}
