//go:build integration && linux

package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keymount/api/provider/v1alpha1"
)

// Defects of upstream's driver in what a volume holds, and when it is asked for, each with the circumstances that bring it out.
func TestRootDefectsOfVolumes(t *testing.T) {
	r := newRig(t, slowly...)
	r.row("10.1/1-empty-unmounted-directory", emptyDirectory)
	r.row("10.1/2-interval-is-a-floor", floor)
	r.row("10.1/10-leftover-data-tmp", leftoverLink)
	r.row("10.1/11-concurrent-publishes", concurrentPublishes)
	r.row("10.1/12-all-objects-removed", allObjectsRemoved)
	r.row("10.1/13-mode-only-change", modeOnlyChange)
}

// The folder is there and young, and nothing is mounted on it: after a failed mount whose folder kubelet kept, and after a
// restart of the node within the interval.
func emptyDirectory(r *rig) {
	p := r.scriptedClass("empty")
	p.fail(status.Error(codes.ResourceExhausted, "too many requests"))
	v := r.volume("empty")
	if err := v.Publish(r.Context()); err == nil {
		r.Fatal("published although the provider refused")
	}
	if n := mountsAt(v.Target); n != 0 {
		r.Errorf("%d mounts are left", n)
	}
	if err := os.MkdirAll(v.Target, 0o750); err != nil {
		r.Fatal(err)
	}
	p.say(content("v1", "a"))
	r.mustPublish(v)
	r.wantFiles(v, map[string]string{"a": "a v1"})

	if err := syscall.Unmount(v.Target, 0); err != nil {
		r.Fatal(err)
	}
	p.say(content("v2", "a"))
	r.mustRepublish(v)
	r.wantFiles(v, map[string]string{"a": "a v2"})
	if n := mountsAt(v.Target); n != 1 {
		r.Errorf("%d mounts, want 1", n)
	}
	r.mustUnpublish(v)
}

// Within the interval nobody is asked, also after a refresh that found nothing new, and the API server hears nothing of it.
func floor(r *rig) {
	p := r.scriptedClass("floor")
	v := r.volume("floor")
	r.mustPublish(v)
	before := r.statusOf(v.Target).GetResourceVersion()
	for _, asked := range []int{1, 2} {
		for range 20 {
			r.mustRepublish(v)
		}
		r.wantAsked(p, asked)
		if asked == 1 {
			r.refreshNow(v, "floor", p, "now")
		}
	}
	if after := r.statusOf(v.Target).GetResourceVersion(); after != before {
		r.Error("unchanged content was written to the API server")
	}
}

// A driver that was killed between making the link and renaming it leaves it.
func leftoverLink(r *rig) {
	p := r.scriptedClass("leftover")
	v := r.volume("leftover")
	r.mustPublish(v)
	if err := os.Symlink("..2024_01_01_00_00_00.1", filepath.Join(v.Target, "..data_tmp")); err != nil {
		r.Fatal(err)
	}
	p.say(content("v2", "a"))
	r.refreshNow(v, "leftover", p, "1")
	r.wantFiles(v, map[string]string{"a": "a v2"})
	if n := len(r.generations(v)); n != 1 {
		r.Errorf("%d generations, want 1", n)
	}
}

// Kubelet gives up on a first publish that still runs, and tries again.
func concurrentPublishes(r *rig) {
	p := r.scriptedClass("both")
	entered, proceed := make(chan struct{}, 8), make(chan struct{})
	p.do(func(ctx context.Context, _ *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		entered <- struct{}{}
		select {
		case <-proceed:
		case <-ctx.Done():
		}
		return content("v1", "a"), ctx.Err()
	})
	pod, volumes := r.pod("", "both")
	first, second := volumes[0], r.again(pod, "v0")
	done := make(chan error, 1)
	go func() { done <- first.Publish(r.Context()) }()
	<-entered
	impatient, cancel := context.WithTimeout(r.Context(), 300*time.Millisecond)
	defer cancel()
	if err := second.Publish(impatient); err == nil {
		r.Error("told that all is well while nothing is there")
	}
	close(proceed)
	if err := <-done; err != nil {
		r.Fatal(err)
	}
	r.mustPublish(second)
	r.wantAsked(p, 1)
	r.wantFiles(second, map[string]string{"a": "a v1"})
	if m, g := mountsAt(first.Target), len(r.generations(first)); m != 1 || g != 1 {
		r.Errorf("%d mounts and %d generations, want one of each", m, g)
	}
	r.mustUnpublish(second)
}

func allObjectsRemoved(r *rig) {
	p := r.scriptedClass("removed")
	p.say(content("v1", "a", "b/c"))
	v := r.volume("removed")
	r.mustPublish(v)
	p.say(content("v2"))
	r.refreshNow(v, "removed", p, "1")
	r.wantFiles(v, nil)
}

func modeOnlyChange(r *rig) {
	p := r.scriptedClass("mode")
	v := r.volume("mode")
	r.mustPublish(v)
	narrower := content("v1", "a")
	narrower.Files[0].Mode = 0o400
	p.say(narrower)
	r.refreshNow(v, "mode", p, "1")
	info, err := os.Stat(filepath.Join(v.Target, "a"))
	if err != nil || info.Mode() != 0o400 {
		r.Errorf("mode is %v (%v), want -r--------", info.Mode(), err)
	}
	r.wantFiles(v, map[string]string{"a": "a v1"})
}

// Whoever may edit status objects can take their labels away.
func TestRootStatusWithoutLabels(t *testing.T) {
	r := newRig(t, slowly...)
	r.row("10.1/9-status-without-labels", func(r *rig) {
		p := r.scriptedClass("labels")
		v := r.volume("labels")
		r.mustPublish(v)
		label := fmt.Sprint(r.statusOf(v.Target).GetLabels())
		pid := r.driver.PID()
		for _, mark := range []string{"in this process", "in the next"} {
			name := r.statusOf(v.Target).GetName()
			_, err := api.Client().Resource(statusGVR).Namespace(r.ns).
				Patch(r.Context(), name, types.MergePatchType, []byte(`{"metadata":{"labels":null}}`), metav1.PatchOptions{})
			if err != nil {
				r.Fatal(err)
			}
			p.say(content(mark, "a"))
			r.refreshNow(v, "labels", p, mark)
			r.wantFiles(v, map[string]string{"a": "a " + mark})
			if got := fmt.Sprint(r.statusOf(v.Target).GetLabels()); got != label {
				r.Errorf("labels are %s, were %s", got, label)
			}
			if !r.driver.Running() || r.driver.PID() != pid {
				r.Fatal("the driver ended")
			}
			if mark == "in this process" {
				r.driver.Restart()
				pid = r.driver.PID()
			}
		}
	})
}
