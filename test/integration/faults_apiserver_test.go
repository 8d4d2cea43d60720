//go:build integration && linux

package integration

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// outage is how long the API server is away, the first half silent, the second half unreachable.
const outage = 20 * time.Second

// informed is the API as kubelet sees it, which has the driver's object from an informer and asks nobody.
type informed struct {
	kubelet.API
	object *storagev1.CSIDriver
}

func (i informed) CSIDriver(context.Context, string) (*storagev1.CSIDriver, error) {
	return i.object, nil
}

// While the API server is away pods keep what they have and get what is new, by the classes that are known; only what
// nobody knows fails, and says why. What could not be told of it meanwhile is told afterwards.
func TestRootAPIServerAway(t *testing.T) {
	r := newRig(t, rotation("1ms")...)
	last := r.provide(r.driver.Providers, "numbers").counting(0)
	r.kubelet = informedKubelet(r)
	r.class("known", "numbers", nil, "a: b")
	r.class("unknown", "numbers", nil, "a: b")
	_, busy := r.podOf("known")
	_, quiet := r.podOf("known")
	_, first := r.podOf("unknown")
	_, late := r.podOf("unknown")
	for _, v := range []*kubelet.Volume{busy, quiet} {
		r.mustPublish(v)
	}
	awaitWatch(r, busy)
	readers := watchVolumes(t, busy.Target, quiet.Target)

	end := time.Now().Add(outage)
	api.Hang()
	t.Cleanup(func() { api.Restore() })
	refused := firstMount(r, first)
	for time.Until(end) > outage/2 {
		rotate(r, busy, last.Load())
	}
	wantUnreachable(t, <-refused)
	if err := api.Restore(); err != nil {
		t.Fatal(err)
	}
	api.Refuse()
	rotate(r, quiet, last.Load())
	wantUnreachable(t, <-firstMount(r, late))
	for time.Until(end) > 0 {
		rotate(r, busy, last.Load())
		elapse(t, 500*time.Millisecond)
	}
	if err := api.Restore(); err != nil {
		t.Fatal(err)
	}
	if err := readers.stop(); err != nil {
		t.Error(err)
	}
	awaitStatus(r, quiet) // nobody asks the driver for that
	rotate(r, busy, last.Load())
	awaitStatus(r, busy)
	for _, v := range []*kubelet.Volume{first, late} {
		r.mustPublish(v)
	}
}

// informedKubelet returns the node's kubelet as it is once it has seen the driver's object.
func informedKubelet(r *rig) *kubelet.Kubelet {
	r.Helper()
	real := kubelet.FromConfig(api.Client())
	object, err := real.CSIDriver(r.Context(), driver.Name)
	if err != nil {
		r.Fatal(err)
	}
	k := kubelet.New(r.driver.Kubelet, driver.Node, informed{real, object})
	if _, err := k.Register(r.Context(), r.driver.Registration); err != nil {
		r.Fatal(err)
	}
	return k
}

// awaitWatch waits until a refresh of the volume no longer asks for its class.
func awaitWatch(r *rig, v *kubelet.Volume) {
	r.Helper()
	r.driver.Await("the class to be watched", func(context.Context) error {
		before, _ := r.askedOfServer()
		r.mustRepublish(v)
		if after, _ := r.askedOfServer(); after != before {
			return fmt.Errorf("%d requests about it", after-before)
		}
		return nil
	})
}

// rotate republishes and checks that the volume holds what is newer than before, and that the driver counts as ready.
func rotate(r *rig, v *kubelet.Volume, before int64) {
	r.Helper()
	r.mustRepublish(v)
	var got int64
	if number, err := readNumber(v.Target); err != nil {
		r.Fatal(err)
	} else if fmt.Sscan(number, &got); got <= before {
		r.Fatalf("the volume holds %d, which it held before", got)
	}
	if code, body, err := r.driver.Get("readyz"); err != nil || code != http.StatusOK {
		r.Errorf("readyz: %d %q, %v", code, body, err)
	}
}

func firstMount(r *rig, v *kubelet.Volume) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- v.Publish(r.Context()) }()
	return ended
}

// wantUnreachable checks the answer to a first mount of a class that nobody knows. Kubelet would wait for two minutes, so an
// answer at all says that the driver did not hang.
func wantUnreachable(t *testing.T, err error) {
	t.Helper()
	if kubelet.OutcomeOf(err) != kubelet.Final || !strings.Contains(fmt.Sprint(err), "failed to get secretproviderclass") ||
		!strings.Contains(fmt.Sprint(err), "could not reach the API server") {
		t.Errorf("a first mount of an unknown class: %v", err)
	}
}

// awaitStatus waits until the status object of the volume's pod says what the volume holds.
func awaitStatus(r *rig, v *kubelet.Volume) {
	r.Helper()
	number, err := readNumber(v.Target)
	if err != nil {
		r.Fatal(err)
	}
	r.driver.Await("the status of "+v.Target, func(context.Context) error {
		for _, status := range r.statuses() {
			target, _, _ := unstructured.NestedString(status.Object, "status", "targetPath")
			objects, _, _ := unstructured.NestedSlice(status.Object, "status", "objects")
			if target != v.Target || len(objects) == 0 {
				continue
			}
			if got := objects[0].(map[string]any)["version"]; got != number {
				return fmt.Errorf("it says %v, the volume holds %s", got, number)
			}
			return nil
		}
		return fmt.Errorf("there is none")
	})
}
