//go:build integration && linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"keymount/internal/volume/volumetest"
	"keymount/test/integration/apiserver"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// upstreamArguments are those of upstream's charts that the driver package does not give anyway.
var upstreamArguments = []string{"--log-format-json=false", "--provider-health-check=false", "--provider-health-check-interval=2m",
	"--max-call-recv-msg-size=4194304"}

// upstreamRotation are the arguments that switch rotation on, without ours. Every republish then finds the volume due.
func upstreamRotation() []string {
	return []string{"--enable-secret-rotation=true", "--rotation-poll-interval=1ms"}
}

func upstreamRotationOptions() driver.Options { return driver.Options{Args: upstreamRotation()} }

// sub is the same node in a subtest, with a namespace of its own.
func (r *rig) sub(t *testing.T) *rig {
	t.Helper()
	return &rig{T: t, ns: api.Namespace(t), emu: r.emu, driver: r.driver, kubelet: r.kubelet}
}

// newNode makes a node whose driver is not started yet, and that has no emulator.
func newNode(t *testing.T, opt driver.Options) *rig {
	t.Helper()
	volumetest.NeedRoot(t)
	install(t)
	applyCSIDriver(t, "")
	r := &rig{T: t, ns: api.Namespace(t), driver: driver.New(t, api, opt)}
	r.kubelet = kubelet.New(r.driver.Kubelet, driver.Node, kubelet.FromConfig(api.Client()))
	return r
}

// newUpstreamRig starts a node where upstream's driver was installed: its arguments, its rights, its registrar.
func newUpstreamRig(t *testing.T, rights string, args ...string) *rig {
	t.Helper()
	volumetest.NeedRoot(t)
	install(t)
	r := newNode(t, driver.Options{Upstream: true, Account: account(t, rights), Args: append(args, upstreamArguments...)})
	r.driver.Start()
	r.registrar()
	r.register()
	return r
}

// account applies the rights of a file under names of their own, since the real ones are those of deploy/rbac on this
// server, and returns the service account that has them and no others.
func account(t testing.TB, rights string) string {
	t.Helper()
	text, err := os.ReadFile(rights)
	if err != nil {
		t.Fatal(err)
	}
	return accountWith(t, strings.TrimSuffix(filepath.Base(rights), ".yaml"), string(text))
}

func accountWith(t testing.TB, name, rights string) string {
	t.Helper()
	api.ApplyText(t, strings.NewReplacer(
		"name: "+driver.ServiceAccount, "name: "+name,
		"name: secretprovider", "name: "+name+"-secretprovider",
	).Replace(rights))
	return name
}

// forbidden lists what the rig's driver was refused.
func (r *rig) forbidden(account string) []apiserver.Request {
	r.Helper()
	return api.Forbidden(r.T, apiserver.User(driver.Namespace, account))
}

// A registrar does what the sidecar of upstream's DaemonSet does: it tells kubelet where the driver serves.
type registrar struct {
	registerapi.UnimplementedRegistrationServer
	endpoint string
}

func (g *registrar) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{Type: registerapi.CSIPlugin, Name: driver.Name, Endpoint: g.endpoint, SupportedVersions: []string{"1.0.0"}}, nil
}

func (g *registrar) NotifyRegistrationStatus(context.Context, *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	return &registerapi.RegistrationStatusResponse{}, nil
}

// registrar serves on the registration socket until stop is called or the test ends.
func (r *rig) registrar() (stop func()) {
	r.Helper()
	l, err := net.Listen("unix", filepath.Join(r.driver.Registration, driver.Name+"-reg.sock"))
	if err != nil {
		r.Fatal(err)
	}
	server := grpc.NewServer()
	registerapi.RegisterRegistrationServer(server, &registrar{endpoint: r.driver.Endpoint})
	go server.Serve(l)
	r.Cleanup(server.Stop)
	return server.Stop
}

// register lets kubelet find who serves now.
func (r *rig) register() {
	r.Helper()
	name, err := r.kubelet.Register(r.Context(), r.driver.Registration)
	if err != nil || name != driver.Name {
		r.Fatalf("registered %q: %v", name, err)
	}
}

// A mounted is one line of the mount table, and when its file system was made: ids are used again.
type mounted struct {
	id, device, options string
	born                unix.StatxTimestamp
}

// mountAt returns what is mounted at the volume's target, and fails unless that is one tmpfs.
func (r *rig) mountAt(v *kubelet.Volume) mounted {
	r.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		r.Fatal(err)
	}
	var found []mounted
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if f[4] == v.Target {
			kind, options, _ := strings.Cut(strings.TrimSpace(line[strings.Index(line, " - ")+3:]), " ")
			if kind != "tmpfs" {
				r.Errorf("a %s is mounted at %s", kind, v.Target)
			}
			var st unix.Statx_t
			if err := unix.Statx(unix.AT_FDCWD, v.Target, 0, unix.STATX_BTIME, &st); err != nil || st.Mask&unix.STATX_BTIME == 0 {
				r.Fatalf("no time of birth of %s: %v", v.Target, err)
			}
			found = append(found, mounted{f[0], f[2], f[5] + " " + options, st.Btime})
		}
	}
	if len(found) != 1 {
		r.Fatalf("%d mounts at %s", len(found), v.Target)
	}
	return found[0]
}

// dataLink returns where ..data points, "" if there is none.
func dataLink(v *kubelet.Volume) string {
	name, _ := os.Readlink(filepath.Join(v.Target, "..data"))
	return name
}

// wantMetric checks that the driver exports a series, named with its labels and value as Prometheus reads it.
func (r *rig) wantMetric(line string) {
	r.Helper()
	code, body, err := r.driver.Get("metrics")
	if err != nil || code != 200 {
		r.Fatalf("metrics: %d, %v", code, err)
	}
	if !strings.Contains(body, "\n"+line+"\n") {
		name, _, _ := strings.Cut(line, "{")
		var has []string
		for l := range strings.Lines(body) {
			if strings.HasPrefix(l, name) {
				has = append(has, l)
			}
		}
		r.Errorf("there is no %s; there are %s", line, has)
	}
}

// logged counts the lines of the driver's log that hold text.
func (r *rig) logged(text string) int { return strings.Count(r.driver.Log(), text) }

// claim claims rows of internal/conformance/rows.tsv.
func claim(t *testing.T, rows ...string) {
	for _, row := range rows {
		t.Attr("conformance", row)
	}
}

// wantMode checks mode and owner of a path below the target, which is not followed.
func wantMode(t testing.TB, path, want string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Error(err)
	} else if got := fmt.Sprint(info.Mode()); got != want {
		t.Errorf("%s has mode %s, want %s", path, got, want)
	}
}

// wantTree checks all files that an application finds in a volume, nested ones by their path.
func (r *rig) wantTree(v *kubelet.Volume, want map[string]string) {
	r.Helper()
	got := map[string]string{}
	entries, err := os.ReadDir(v.Target)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		top, lerr := filepath.EvalSymlinks(filepath.Join(v.Target, e.Name()))
		err = errors.Join(err, lerr, filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			got[e.Name()+strings.TrimPrefix(path, top)] = string(text)
			return err
		}))
	}
	if err != nil || !maps.Equal(got, want) {
		r.Errorf("the volume holds %q (%v), want %q", got, err, want)
	}
}
