//go:build integration && linux

package kubelet

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registrar is a driver that serves its CSI socket, and its registration when told to.
type registrar struct {
	*small
	dir    string // of registration sockets
	socket string
	csi    string
}

func newRegistrar(t *testing.T) *registrar {
	t.Helper()
	r := &registrar{small: &small{nodeID: "node"}, dir: t.TempDir(), csi: filepath.Join(t.TempDir(), "csi.sock")}
	r.socket = filepath.Join(r.dir, driverName+"-reg.sock")
	r.info = &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: driverName, Endpoint: r.csi, SupportedVersions: []string{"1.0.0"},
	}
	serve(t, r.csi, func(s *grpc.Server) { csi.RegisterNodeServer(s, r.small) })
	return r
}

func (r *registrar) register(t *testing.T) (stop func()) {
	t.Helper()
	return serve(t, r.socket, func(s *grpc.Server) { registration.RegisterRegistrationServer(s, r.small) })
}

func TestRegister(t *testing.T) {
	d := newRegistrar(t)
	k := New(t.TempDir(), "node", &memory{})
	d.register(t)
	name, err := k.Register(t.Context(), d.dir)
	if err != nil || name != driverName || !maps.Equal(k.Drivers(), map[string]string{driverName: d.csi}) {
		t.Errorf("got %q, %v, %v", name, err, k.Drivers())
	}
	if len(d.statuses) != 1 || !d.statuses[0].PluginRegistered || d.statuses[0].Error != "" {
		t.Errorf("the driver was told %v", d.statuses)
	}
	if names, err := k.SyncPlugins(t.Context(), d.dir); err != nil || len(names) > 0 || len(d.statuses) != 1 {
		t.Errorf("registered anew what has not changed: %v, %v", names, err)
	}
}

func TestRegisterWaitsForTheSocket(t *testing.T) {
	d := newRegistrar(t)
	k := New(t.TempDir(), "node", &memory{})
	done := make(chan error)
	go func() {
		_, err := k.Register(t.Context(), d.dir)
		done <- err
	}()
	d.register(t)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRegistrationFollowsTheSocket(t *testing.T) {
	t.Attr("conformance", "2.6/registration")
	d := newRegistrar(t)
	k := New(t.TempDir(), "node", &memory{})
	sync := func(want int) {
		t.Helper()
		names, err := k.SyncPlugins(t.Context(), d.dir)
		if err != nil || len(names) != want {
			t.Fatalf("registered %v, %v; want %d", names, err, want)
		}
	}
	stop := d.register(t)
	sync(1)
	stop() // removes the socket
	stop = d.register(t)
	sync(1) // anew at the same path
	stop()
	sync(0)
	if len(k.Drivers()) > 0 {
		t.Errorf("registered without a socket: %v", k.Drivers())
	}
}

func TestRegistrationIsRefused(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*registrar, *Kubelet)
		want   string
	}{
		{"another type", func(d *registrar, _ *Kubelet) { d.info.Type = "DevicePlugin" }, "no handler registered for plugin type"},
		{"no version", func(d *registrar, _ *Kubelet) { d.info.SupportedVersions = nil }, "validation failed"},
		{"version 2", func(d *registrar, _ *Kubelet) { d.info.SupportedVersions = []string{"2.0.0"} }, "validation failed"},
		{"no node id", func(d *registrar, _ *Kubelet) { d.nodeID = "" }, "driverNodeID must not be empty"},
		{"CSI socket not serving", func(d *registrar, _ *Kubelet) { d.info.Endpoint = filepath.Join(d.dir, "none") }, "registration failed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newRegistrar(t)
			k := New(t.TempDir(), "node", &memory{})
			tc.change(d, k)
			d.register(t)
			names, err := k.SyncPlugins(t.Context(), d.dir)
			if err == nil || !strings.Contains(err.Error(), tc.want) || len(names) > 0 || len(k.Drivers()) > 0 {
				t.Errorf("got %v, %v, %v", names, err, k.Drivers())
			}
			if len(d.statuses) != 1 || d.statuses[0].PluginRegistered || !strings.Contains(d.statuses[0].Error, tc.want) {
				t.Errorf("the driver was told %v", d.statuses)
			}
		})
	}
}

func TestSecondDriverOfTheNameIsRefused(t *testing.T) {
	d := newRegistrar(t)
	k := New(t.TempDir(), "node", &memory{})
	d.register(t)
	if _, err := k.Register(t.Context(), d.dir); err != nil {
		t.Fatal(err)
	}
	second := newRegistrar(t)
	second.socket = filepath.Join(d.dir, "other.sock")
	second.register(t)
	_, err := k.SyncPlugins(t.Context(), d.dir)
	if err == nil || !strings.Contains(err.Error(), "already registered") || k.Drivers()[driverName] != d.csi {
		t.Errorf("got %v, %v", err, k.Drivers())
	}
}

func TestWhatIsNoSocketOfADriver(t *testing.T) {
	d := newRegistrar(t)
	k := New(t.TempDir(), "node", &memory{})
	if err := os.WriteFile(d.socket, nil, 0o600); err != nil { // a file
		t.Fatal(err)
	}
	d.socket = filepath.Join(d.dir, ".hidden.sock")
	d.register(t)
	if names, err := k.SyncPlugins(t.Context(), d.dir); err != nil || len(names) > 0 {
		t.Errorf("registered %v, %v", names, err)
	}
	if _, err := k.SyncPlugins(t.Context(), filepath.Join(d.dir, "none")); err == nil {
		t.Error("a folder that is not there passed")
	}
}

func TestStaleSocketIsNoDriver(t *testing.T) {
	d := newRegistrar(t)
	k := New(t.TempDir(), "node", &memory{})
	stop := d.register(t)
	stale := filepath.Join(d.dir, "stale.sock")
	if err := os.Rename(d.socket, stale); err != nil { // the listener will not find it to remove
		t.Fatal(err)
	}
	stop()
	if names, err := k.SyncPlugins(t.Context(), d.dir); err == nil || len(names) > 0 {
		t.Errorf("registered %v, %v", names, err)
	}
	d.register(t)
	if name, err := k.Register(t.Context(), d.dir); err != nil || name != driverName {
		t.Errorf("beside a stale socket: %q, %v", name, err)
	}
}
