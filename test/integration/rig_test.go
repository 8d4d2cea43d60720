//go:build integration && linux

package integration

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/volume/volumetest"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// vault is the vault of the emulator that rigs with Azure have.
const vault = "integration"

// A rig is one node: a driver process, a kubelet, an emulator of Azure where it is wanted, and a namespace with classes.
type rig struct {
	*testing.T
	ns      string
	emu     *emulatortest.Emulator
	driver  *driver.Driver
	kubelet *kubelet.Kubelet
}

// rotation are the arguments that switch rotation on.
func rotation(interval string) []string {
	return []string{"--enable-secret-rotation", "--rotation-poll-interval=" + interval, "--min-rotation-poll-interval=1s"}
}

// withAzure are the arguments for a provider in the process.
func withAzure(more ...string) []string {
	return append([]string{"--builtin-providers=azure"}, more...)
}

// newRig starts a node. The driver registers with the kubelet.
func newRig(t *testing.T, args ...string) *rig {
	t.Helper()
	return newRigWith(t, driver.Options{Args: args})
}

func newRigWith(t *testing.T, opt driver.Options) *rig {
	t.Helper()
	volumetest.NeedRoot(t)
	install(t)
	applyCSIDriver(t, "")
	r := &rig{T: t, ns: api.Namespace(t)}
	r.emu = emulatortest.Start(t, emulatortest.DefaultSeed(vault))
	opt.Env = append(opt.Env, r.emu.Env()...)
	// The API server is reached directly, whatever proxy leads to the emulator.
	opt.Env = append(opt.Env, "NO_PROXY=127.0.0.1,localhost", "no_proxy=127.0.0.1,localhost")
	r.driver = driver.New(t, api, opt)
	r.driver.Start()
	r.kubelet = kubelet.New(r.driver.Kubelet, driver.Node, kubelet.FromConfig(api.Client()))
	if _, err := r.kubelet.Register(t.Context(), r.driver.Registration); err != nil {
		t.Fatal(err)
	}
	return r
}

// applyCSIDriver makes the driver's object as the charts do; more is added to its spec.
func applyCSIDriver(t testing.TB, more string) {
	t.Helper()
	api.ApplyText(t, fmt.Sprintf(`
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: %s}
spec: {podInfoOnMount: true, attachRequired: false, volumeLifecycleModes: [Ephemeral], requiresRepublish: true%s}
`, driver.Name, more))
}

// class makes or changes a SecretProviderClass. parameters are lines of YAML.
func (r *rig) class(name, provider string, annotations map[string]string, parameters ...string) {
	r.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\nmetadata:\n  name: %s\n  namespace: %s\n  annotations: {", name, r.ns)
	for k, v := range annotations {
		fmt.Fprintf(&b, "%q: %q, ", k, v)
	}
	fmt.Fprintf(&b, "}\nspec:\n  provider: %s\n  parameters:\n", provider)
	for _, p := range parameters {
		b.WriteString("    " + strings.ReplaceAll(p, "\n", "\n    ") + "\n")
	}
	api.ApplyText(r.T, b.String())
}

// azureClass makes a class of secrets of the vault, read by a service principal.
func (r *rig) azureClass(name string, annotations map[string]string, secrets ...string) {
	r.Helper()
	objects := "objects: |\n  array:\n"
	for _, s := range secrets {
		objects += "    - |\n      objectName: " + s + "\n      objectType: secret\n"
	}
	r.class(name, "azure", annotations, "keyvaultName: "+vault, "tenantId: "+emulatortest.Tenant, objects)
}

var statusGVR = schema.GroupVersionResource{Group: "secrets-store.csi.x-k8s.io", Version: "v1", Resource: "secretproviderclasspodstatuses"}

// principal makes the Secret of a service principal.
func (r *rig) principal(name string) {
	r.Helper()
	api.ApplyText(r.T, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\nstringData: {clientid: %s, clientsecret: %s}\n",
		name, r.ns, emulatortest.ClientID, emulatortest.ClientSecret))
}

// volume makes a pod with one volume of the class. change may alter the pod before it is created.
func (r *rig) volume(class string, change ...func(*corev1.Pod)) *kubelet.Volume {
	r.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.ns, GenerateName: "pod-"},
		Spec: corev1.PodSpec{ServiceAccountName: "default", NodeName: driver.Node,
			Volumes: []corev1.Volume{kubelet.Inline("secrets", driver.Name, map[string]string{"secretProviderClass": class})}},
	}
	for _, c := range change {
		c(pod)
	}
	v, err := r.kubelet.Volume(api.Pod(r.T, pod), "secrets")
	if err != nil {
		r.Fatal(err)
	}
	return v
}

// withSecret gives the volume a nodePublishSecretRef.
func withSecret(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes[0].CSI.NodePublishSecretRef = &corev1.LocalObjectReference{Name: name}
	}
}

// mustPublish publishes, and checks that what the volume should hold is there.
func (r *rig) mustPublish(v *kubelet.Volume) {
	r.Helper()
	if err := v.Publish(r.Context()); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) mustRepublish(v *kubelet.Volume) {
	r.Helper()
	if err := v.Republish(r.Context()); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) mustUnpublish(v *kubelet.Volume) {
	r.Helper()
	if err := v.Unpublish(r.Context()); err != nil {
		r.Fatal(err)
	}
	if _, err := os.Lstat(v.Target); !os.IsNotExist(err) {
		r.Errorf("the target is left: %v", err)
	}
}

// wantFiles checks the files of a volume, read as an application does.
func (r *rig) wantFiles(v *kubelet.Volume, want map[string]string) {
	r.Helper()
	for name, content := range want {
		if got, err := os.ReadFile(filepath.Join(v.Target, name)); err != nil || string(got) != content {
			r.Errorf("%s holds %q (%v), want %q", name, got, err, content)
		}
	}
	entries, err := os.ReadDir(v.Target)
	if err != nil {
		r.Error(err)
	}
	n := 0
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "..") {
			n++
		}
	}
	if n != len(want) {
		r.Errorf("%d files, want %d: %v", n, len(want), entries)
	}
}

// statuses returns the status objects of the namespace.
func (r *rig) statuses() []unstructured.Unstructured {
	r.Helper()
	list, err := api.Client().Resource(statusGVR).Namespace(r.ns).List(r.Context(), metav1.ListOptions{})
	if err != nil {
		r.Fatal(err)
	}
	return list.Items
}

// events returns "type reason: message" of the Events in the namespace.
func (r *rig) events() []string {
	r.Helper()
	list, err := api.Client().Resource(corev1.SchemeGroupVersion.WithResource("events")).Namespace(r.ns).List(r.Context(), metav1.ListOptions{})
	if err != nil {
		r.Fatal(err)
	}
	var out []string
	for _, e := range list.Items {
		out = append(out, fmt.Sprintf("%v %v: %v", e.Object["type"], e.Object["reason"], e.Object["message"]))
	}
	return out
}

// awaitEvent waits for an Event that contains text.
func (r *rig) awaitEvent(text string) {
	r.Helper()
	r.driver.Await("an Event with "+text, func(context.Context) error {
		for _, e := range r.events() {
			if strings.Contains(e, text) {
				return nil
			}
		}
		return fmt.Errorf("there are %q", r.events())
	})
}

// A scripted is a provider of the tests behind a socket, which answers what the test says.
type scripted struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
	path   string
	server *grpc.Server

	mu       sync.Mutex
	answer   func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error)
	requests []*v1alpha1.MountRequest
}

// provide serves a provider of that name in the folder until the test ends.
func (r *rig) provide(folder, name string) *scripted {
	r.Helper()
	p := &scripted{path: filepath.Join(folder, name+".sock")}
	p.say(content("v1", "a"))
	p.start(r.T)
	r.Cleanup(func() { p.server.Stop() })
	return p
}

func (p *scripted) start(t testing.TB) {
	t.Helper()
	os.Remove(p.path)
	l, err := net.Listen("unix", p.path)
	if err != nil {
		t.Fatal(err)
	}
	p.server = grpc.NewServer()
	v1alpha1.RegisterCSIDriverProviderServer(p.server, p)
	go p.server.Serve(l)
}

// say makes the provider answer so from now on.
func (p *scripted) say(resp *v1alpha1.MountResponse) {
	p.do(func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) { return resp, nil })
}

func (p *scripted) fail(err error) {
	p.do(func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) { return nil, err })
}

func (p *scripted) do(answer func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

// asked are the requests so far.
func (p *scripted) asked() []*v1alpha1.MountRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*v1alpha1.MountRequest(nil), p.requests...)
}

func (p *scripted) Mount(ctx context.Context, req *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	p.mu.Lock()
	p.requests = append(p.requests, req)
	answer := p.answer
	p.mu.Unlock()
	return answer(ctx, req)
}

func (p *scripted) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: "scripted", RuntimeVersion: "1"}, nil
}

// content is an answer with one file per path, each at version v.
func content(v string, paths ...string) *v1alpha1.MountResponse {
	resp := &v1alpha1.MountResponse{}
	for _, p := range paths {
		resp.Files = append(resp.Files, &v1alpha1.File{Path: p, Mode: 0o644, Contents: []byte(p + " " + v)})
		resp.ObjectVersion = append(resp.ObjectVersion, &v1alpha1.ObjectVersion{Id: "secret/" + p, Version: v})
	}
	return resp
}

// elapse waits until an interval has passed on the system's clock, which is what the driver in its process goes by.
func elapse(t testing.TB, interval time.Duration) {
	t.Helper()
	timer := time.NewTimer(interval + 50*time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}
