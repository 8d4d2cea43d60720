//go:build integration && linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/util/version"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"keymount/test/integration/await"
)

// How long a plugin may take (pluginmanager/operationexecutor operation_generator.go).
const (
	dialTimeout   = 10 * time.Second
	infoTimeout   = time.Second
	notifyTimeout = 5 * time.Second
)

// plugin is a registration socket that was taken on, and what it brought.
type plugin struct {
	name   string
	socket socketID
}

// socketID tells a socket from one that was made anew at the same path.
type socketID struct {
	inode uint64
	birth unix.StatxTimestamp
}

// Register waits until a driver that was not registered before has registered from a socket below dir, and returns its name.
// It takes the steps of SyncPlugins until then; ctx bounds it.
func (k *Kubelet) Register(ctx context.Context, dir string) (string, error) {
	var name string
	err := await.For(ctx, "a driver to register from "+dir, func(ctx context.Context) error {
		names, err := k.SyncPlugins(ctx, dir)
		if len(names) > 0 {
			name = names[0]
			return nil
		}
		return errors.Join(errors.New("no new socket registered"), err)
	})
	return name, err
}

// SyncPlugins takes one step of kubelet's plugin manager, which takes one each second: drivers whose registration socket is
// gone, or was made anew, are forgotten first; then all sockets below dir that are new are registered
// (pluginmanager/reconciler reconcile, pluginwatcher traversePluginDir). Any socket whose name does not begin with a dot
// counts. It returns the names registered in this step. kubelet would wait between failures of one socket, like Backoff.
func (k *Kubelet) SyncPlugins(ctx context.Context, dir string) (names []string, err error) {
	found, err := sockets(dir)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	for path, known := range k.sockets {
		if id, ok := found[path]; !ok || id != known.socket {
			delete(k.sockets, path)
			delete(k.drivers, known.name)
		}
	}
	k.mu.Unlock()
	var errs []error
	for path, id := range found {
		k.mu.Lock()
		_, known := k.sockets[path]
		k.mu.Unlock()
		if known {
			continue
		}
		name, err := k.register(ctx, path, id)
		if err != nil {
			errs = append(errs, fmt.Errorf("registering %s: %w", path, err))
			continue
		}
		names = append(names, name)
	}
	return names, errors.Join(errs...)
}

func sockets(dir string) (map[string]socketID, error) {
	found := map[string]socketID{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if path == dir {
				return err
			}
			return nil // kubelet logs it and goes on
		}
		if entry.Type() != fs.ModeSocket || strings.HasPrefix(entry.Name(), ".") {
			return nil
		}
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st); err == nil {
			found[path] = socketID{st.Ino, st.Btime}
		}
		return nil
	})
	return found, err
}

// register asks a plugin who it is, judges that, and tells it the result (operation_generator.go GenerateRegisterPluginFunc).
func (k *Kubelet) register(ctx context.Context, socket string, id socketID) (string, error) {
	conn, err := dialPlugin(ctx, socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	client := registration.NewRegistrationClient(conn)
	infoCtx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	info, err := client.GetInfo(infoCtx, &registration.InfoRequest{})
	if err != nil {
		return "", fmt.Errorf("failed to get plugin info using RPC GetInfo: %w", err)
	}
	if info.Type != registration.CSIPlugin {
		return "", refuse(ctx, client, fmt.Errorf("no handler registered for plugin type: %s", info.Type))
	}
	endpoint := info.Endpoint
	if endpoint == "" {
		endpoint = socket
	}
	highest, err := k.validate(info.Name, info.SupportedVersions)
	if err != nil {
		return "", refuse(ctx, client, fmt.Errorf("plugin validation failed with err: %w", err))
	}
	k.mu.Lock()
	k.drivers[info.Name] = driver{endpoint, highest}
	k.sockets[socket] = plugin{info.Name, id}
	k.mu.Unlock()
	if err := checkNodeID(ctx, endpoint); err != nil {
		k.forget(socket, info.Name)
		return "", refuse(ctx, client, fmt.Errorf("plugin registration failed with err: %w", err))
	}
	if err := notify(ctx, client, ""); err != nil {
		k.forget(socket, info.Name)
		return "", fmt.Errorf("failed to send registration status: %w", err)
	}
	return info.Name, nil
}

func (k *Kubelet) forget(socket, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.sockets, socket)
	delete(k.drivers, name)
}

// validate wants a version 1.x, and higher than that of a driver of this name which is registered from another socket
// (csi_plugin.go validateVersions).
func (k *Kubelet) validate(name string, versions []string) (*version.Version, error) {
	highest, err := version.HighestSupportedVersion(versions)
	if err != nil {
		return nil, fmt.Errorf("none of the versions specified %q are supported: %w", versions, err)
	}
	if other, ok := k.driver(name); ok && !other.version.LessThan(highest) {
		return nil, fmt.Errorf("another driver with the name %s is already registered with version %s", name, other.version)
	}
	return highest, nil
}

// checkNodeID calls NodeGetInfo on the CSI socket, which must serve by then (csi_plugin.go RegisterPlugin;
// nodeinfomanager.go InstallCSIDriver, of which only the check of the node id is done).
func checkNodeID(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, PublishTimeout)
	defer cancel()
	info, err := call(endpoint, func(c csi.NodeClient) (*csi.NodeGetInfoResponse, error) {
		return c.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	})
	if err != nil {
		return err
	}
	if info.GetNodeId() == "" {
		return errors.New("error adding CSI driver node info: driverNodeID must not be empty")
	}
	return nil
}

// refuse tells the plugin why it was not registered and returns that.
func refuse(ctx context.Context, client registration.RegistrationClient, why error) error {
	return errors.Join(why, notify(ctx, client, "RegisterPlugin error -- "+why.Error()))
}

func notify(ctx context.Context, client registration.RegistrationClient, why string) error {
	ctx, cancel := context.WithTimeout(ctx, notifyTimeout)
	defer cancel()
	_, err := client.NotifyRegistrationStatus(ctx, &registration.RegistrationStatus{PluginRegistered: why == "", Error: why})
	return err
}

// dialPlugin connects to a registration socket (operation_generator.go dial). kubelet tries for 10 s; here a refused
// connection ends it, since the test's next step is the next attempt.
func dialPlugin(ctx context.Context, socket string) (*grpc.ClientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", address)
		}))
	if err != nil {
		return nil, err
	}
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if state == connectivity.TransientFailure || !conn.WaitForStateChange(ctx, state) {
			conn.Close()
			return nil, fmt.Errorf("failed to dial socket %s: %s", socket, state)
		}
	}
	return conn, nil
}
