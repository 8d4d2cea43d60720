//go:build integration && linux

package integration

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keymount/api/provider/v1alpha1"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// slowly are the arguments for rotation that never comes by itself during a test; refreshNow makes it come.
var slowly = []string{"--enable-secret-rotation", "--rotation-poll-interval=1h", "--provider-health-check"}

// inside is the rig for a subtest.
func (r *rig) inside(t *testing.T) *rig {
	one := *r
	one.T = t
	return &one
}

// row runs the subtest that shows a row of the conformance tables.
func (r *rig) row(id string, show func(r *rig)) {
	r.Run(id[strings.Index(id, "/")+1:], func(t *testing.T) {
		t.Attr("conformance", id)
		show(r.inside(t))
	})
}

// pod makes a pod with one volume per class, v0, v1, ..., and returns it with its volumes. Without a name it gets one.
func (r *rig) pod(name string, classes ...string) (*corev1.Pod, []*kubelet.Volume) {
	r.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: r.ns, Name: name},
		Spec: corev1.PodSpec{ServiceAccountName: "default", NodeName: driver.Node}}
	for i, class := range classes {
		pod.Spec.Volumes = append(pod.Spec.Volumes, kubelet.Inline(fmt.Sprint("v", i), driver.Name, map[string]string{"secretProviderClass": class}))
	}
	pod = api.Pod(r.T, pod)
	var volumes []*kubelet.Volume
	for i := range classes {
		volumes = append(volumes, r.again(pod, fmt.Sprint("v", i)))
	}
	return pod, volumes
}

// again is a volume of the pod as a kubelet sees it that knows nothing of it yet.
func (r *rig) again(pod *corev1.Pod, name string) *kubelet.Volume {
	r.Helper()
	v, err := r.kubelet.Volume(pod, name)
	if err != nil {
		r.Fatal(err)
	}
	return v
}

// scriptedClass makes a class whose provider is behind a socket, and the provider.
func (r *rig) scriptedClass(name string) *scripted {
	r.Helper()
	r.class(name, name, nil, "objects: x")
	return r.provide(r.driver.Providers, name)
}

// refreshNow has the class ask for a refresh, and republishes until the provider was asked once more.
func (r *rig) refreshNow(v *kubelet.Volume, class string, p *scripted, mark string) {
	r.Helper()
	before := len(p.asked())
	r.class(class, class, map[string]string{"keymount.dev/refresh": mark}, "objects: x")
	r.driver.Await("the provider to be asked", func(ctx context.Context) error {
		if err := v.Republish(ctx); err != nil {
			return err
		}
		if len(p.asked()) == before {
			return fmt.Errorf("asked %d times", before)
		}
		return nil
	})
}

// mountsAt counts what is mounted at a target.
func mountsAt(target string) int {
	n := 0
	for _, point := range driver.Mounts(filepath.Dir(target)) {
		if point == target {
			n++
		}
	}
	return n
}

// generations are the folders of a volume that hold a content.
func (r *rig) generations(v *kubelet.Volume) []string {
	r.Helper()
	found, err := filepath.Glob(filepath.Join(v.Target, "..2*"))
	if err != nil {
		r.Fatal(err)
	}
	return found
}

// wantAsked checks how often a provider was asked.
func (r *rig) wantAsked(p *scripted, want int) {
	r.Helper()
	if n := len(p.asked()); n != want {
		r.Errorf("the provider was asked %d times, want %d", n, want)
	}
}

// abandoned leaves a socket on which nobody listens.
func (r *rig) abandoned(path string) {
	r.Helper()
	os.Remove(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		r.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

// An unwell provider mounts, and hangs when it is asked how it is.
type unwell struct {
	*scripted
	asked    chan struct{} // closed when it is
	answered chan struct{} // closed when the question has ended
}

func (u *unwell) Version(ctx context.Context, _ *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	select {
	case <-u.asked:
	default:
		close(u.asked)
		defer close(u.answered)
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// provideUnwell serves such a provider until the test ends.
func (r *rig) provideUnwell(name string) *unwell {
	r.Helper()
	u := &unwell{scripted: &scripted{path: filepath.Join(r.driver.Providers, name+".sock")}, asked: make(chan struct{}), answered: make(chan struct{})}
	u.say(content("v1", "a"))
	l, err := net.Listen("unix", u.path)
	if err != nil {
		r.Fatal(err)
	}
	u.server = grpc.NewServer()
	v1alpha1.RegisterCSIDriverProviderServer(u.server, u)
	go u.server.Serve(l)
	r.Cleanup(u.server.Stop)
	return u
}

// metric returns the lines of /metrics that hold all of the texts.
func (r *rig) metric(texts ...string) (lines []string) {
	r.Helper()
	_, body, err := r.driver.Get("metrics")
	if err != nil {
		r.Fatal(err)
	}
	for line := range strings.Lines(body) {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}
