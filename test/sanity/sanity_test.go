//go:build integration && linux

package sanity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/volume/volumetest"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// processes is how many driver processes the suite runs against, one after the other, on the same folders.
const processes = 10

// volumesPerRun are those that the specs make, one for each pod.
const volumesPerRun = 3

// wantChecks are the checks of one run: one spec publishes ten times, two once; each unpublishes its volume when it ends,
// one of them before that too.
var wantChecks = checks{Published: 12, Unpublished: 4, Refused: 3, UnpublishRefused: 2, Volumes: volumesPerRun, VolumesDeleted: volumesPerRun}

// content is what the provider says.
var content = map[string]string{"user": "sanity", "password": "not a secret"}

func TestRootSanity(t *testing.T) {
	volumetest.NeedRoot(t)
	const repository, class = "../..", "sanity"
	api.Apply(t, filepath.Join(repository, "api/crds/*.yaml"), filepath.Join(repository, "deploy/rbac/*.yaml"))
	namespace := api.Namespace(t)
	api.ApplyText(t, fmt.Sprintf(`
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: %s}
spec: {podInfoOnMount: true, attachRequired: false, volumeLifecycleModes: [Ephemeral], requiresRepublish: true}
---
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: %s, namespace: %s}
spec: {provider: sanity, parameters: {objects: all}}
`, driver.Name, class, namespace))
	d := driver.New(t, api, driver.Options{})
	serveProvider(t, filepath.Join(d.Providers, "sanity.sock"))
	folders := filepath.Join(d.Kubelet, "pods", "volumes")
	if err := os.MkdirAll(folders, 0o750); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for i := range processes {
		d.Start()
		seen[d.PID()] = true
		todo := task{Endpoint: d.Endpoint, Root: d.Root, Folder: filepath.Join(folders, "secrets"), Class: class, Files: content,
			Report: filepath.Join(t.TempDir(), "report.json")}
		for range volumesPerRun + 1 {
			todo.Volumes = append(todo.Volumes, newVolume(t, namespace, class))
		}
		t.Run(fmt.Sprintf("process %d", i+1), func(t *testing.T) { judge(t, run(t, todo)) })
		d.Stop()
		wantForgotten(t, d.State, todo.Volumes)
		if t.Failed() {
			return // the next would fail by what this one left
		}
	}
	if len(seen) != processes {
		t.Errorf("%d processes, want %d", len(seen), processes)
	}
}

// newVolume makes a pod with one volume, with the id that kubelet would give it (kubernetes, pkg/volume/csi/csi_mounter.go
// makeVolumeHandle).
func newVolume(t *testing.T, namespace, class string) volume {
	t.Helper()
	pod := api.Pod(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace},
		Spec: corev1.PodSpec{ServiceAccountName: "default", NodeName: driver.Node,
			Volumes: []corev1.Volume{kubelet.Inline("secrets", driver.Name, map[string]string{"secretProviderClass": class})}},
	})
	return volume{
		ID:        fmt.Sprintf("csi-%x", sha256.Sum256([]byte(string(pod.UID)+"secrets"))),
		Namespace: namespace, Pod: pod.Name, PodUID: string(pod.UID), ServiceAccount: "default",
	}
}

// run runs the suite once, in a process of its own.
func run(t *testing.T, todo task) report {
	t.Helper()
	text, err := json.Marshal(todo)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), taskEnv+"="+string(text), "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, ended := cmd.CombinedOutput()
	if ended != nil {
		t.Errorf("the suite ended with %v:\n%s", ended, output)
	}
	var r report
	answer, err := os.ReadFile(todo.Report)
	if err == nil {
		err = json.Unmarshal(answer, &r)
	}
	if err != nil {
		t.Fatalf("reading the report: %v\n%s", err, output)
	}
	return r
}

// judge holds a report to what the tables say.
func judge(t *testing.T, r report) {
	t.Helper()
	var ran, skipped, services []string
	for _, s := range r.Specs {
		switch {
		case s.State == "passed":
			ran = append(ran, s.Name)
		case (s.State == "skipped" || s.State == "pending") && s.Why == "":
			services = append(services, s.Service)
		case s.State == "skipped":
			skipped = append(skipped, s.Name+": "+s.Why)
		default:
			t.Errorf("%s: %s: %s", s.Name, s.State, s.Why)
		}
	}
	slices.Sort(services)
	compare(t, "specs that run", ran, specsThatRun)
	compare(t, "specs that are skipped", skipped, specsSkipped())
	compare(t, "services that are left out", slices.Compact(services), servicesLeftOut)
	if r.Checks != wantChecks {
		t.Errorf("checks made: %+v, want %+v", r.Checks, wantChecks)
	}
	for _, f := range r.Failures {
		t.Error(f)
	}
}

// compare compares two lists, whatever their order. The first entry of want is number 1.
func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d, want %d", what, len(got), len(want))
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("%s: not in the table: %q", what, g)
		}
	}
	for i, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("%s: number %d is missing: %q", what, i+1, w)
		}
	}
}

// wantForgotten checks that no file of the driver still speaks of a volume.
func wantForgotten(t *testing.T, state string, volumes []volume) {
	t.Helper()
	err := filepath.WalkDir(state, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, v := range volumes {
			if bytes.Contains(text, []byte(v.ID)) || strings.Contains(path, v.ID) {
				t.Errorf("%s is left of volume %s", path, v.ID)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A fixed is a provider that always has the same content.
type fixed struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
}

func (fixed) Mount(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	answer := &v1alpha1.MountResponse{}
	for path, text := range content {
		answer.Files = append(answer.Files, &v1alpha1.File{Path: path, Mode: 0o644, Contents: []byte(text)})
		answer.ObjectVersion = append(answer.ObjectVersion, &v1alpha1.ObjectVersion{Id: "secret/" + path, Version: "1"})
	}
	return answer, nil
}

func (fixed) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: "sanity", RuntimeVersion: "1"}, nil
}

// serveProvider serves the provider until the test ends.
func serveProvider(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	v1alpha1.RegisterCSIDriverProviderServer(server, fixed{})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("serving the provider: %v", err)
		}
	})
}
