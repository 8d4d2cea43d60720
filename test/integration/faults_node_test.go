//go:build integration && linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"keymount/api/provider/v1alpha1"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// After a reboot the mounts are gone, and folders, kubelet's files and the driver's records are not. Whatever the records
// say, a volume is made anew, or kubelet is told that it is not there.
func TestRootReboot(t *testing.T) {
	for name, args := range map[string][]string{"rotation": rotation("1h"), "no rotation": nil} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, args...)
			numbers := r.provide(r.driver.Providers, "numbers")
			last := numbers.counting(0)
			self := r.provide(r.driver.Providers, "self")
			self.do(writeItself)
			r.class("numbers", "numbers", nil, "a: b")
			r.class("self", "self", nil, "a: b")
			podA, a := r.podOf("numbers")
			podB, b := r.podOf("numbers")
			podS, s := r.podOf("self")
			for _, v := range []*kubelet.Volume{a, b, s} {
				r.mustPublish(v)
			}
			reboot(r)
			before := last.Load()
			// A driver that was killed between mount and fetch, on a device that happens to have the old number.
			mountEmpty(r, s.Target)
			device := r.device(s.Target)
			r.rewriteRecords(func(record map[string]any) { record["device"] = device })
			r.driver.Start()
			r.kubelet = kubelet.New(r.driver.Kubelet, driver.Node, kubelet.FromConfig(api.Client()))
			if _, err := r.kubelet.Register(t.Context(), r.driver.Registration); err != nil {
				t.Fatal(err)
			}
			a, s = found(r, podA), found(r, podS)
			var err error
			if b, err = r.kubelet.Volume(podB, "secrets"); err != nil {
				t.Fatal(err)
			}

			numbers.fail(errors.New("not yet"))
			for _, v := range []*kubelet.Volume{a, b} {
				if err := v.Publish(t.Context()); !strings.Contains(fmt.Sprint(err), "not yet") {
					t.Errorf("a volume that is not there: %v", err)
				}
			}
			numbers.do(func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
				return numbered(last.Add(1)), nil
			})
			for _, v := range []*kubelet.Volume{a, b} {
				r.mustPublish(v)
				if number, err := readNumber(v.Target); err != nil || number <= fmt.Sprint(before) || r.mountsAt(v.Target) != 1 {
					t.Errorf("after the reboot: number %q, %v, %d mounts", number, err, r.mountsAt(v.Target))
				}
			}
			r.mustPublish(s)
			r.wantFiles(s, map[string]string{"own": "content"})

			// Without a reboot: somebody unmounts what kubelet takes for mounted.
			if err := syscall.Unmount(b.Target, 0); err != nil {
				t.Fatal(err)
			}
			r.mustRepublish(b)
			if _, err := readNumber(b.Target); err != nil {
				t.Errorf("a mount that was lost: %v", err)
			}
		})
	}
}

// writeItself is a provider that writes into the target, and names what it wrote.
func writeItself(_ context.Context, req *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	err := os.WriteFile(filepath.Join(req.GetTargetPath(), "own"), []byte("content"), 0o644)
	return &v1alpha1.MountResponse{ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "own", Version: "1"}}}, err
}

// reboot ends the driver and what it mounted, and makes the records those of an earlier run of the system.
func reboot(r *rig) {
	r.Helper()
	r.driver.Kill()
	for _, point := range driver.Mounts(r.driver.Kubelet) {
		if err := syscall.Unmount(point, 0); err != nil {
			r.Fatal(err)
		}
	}
	r.rewriteRecords(func(record map[string]any) { record["bootID"] = "7a0d8a4e-0000-4000-8000-000000000000" })
}

func mountEmpty(r *rig, target string) {
	r.Helper()
	if err := syscall.Mount("tmpfs", target, "tmpfs", 0, "mode=0755"); err != nil {
		r.Fatal(err)
	}
}

// found is the volume of a pod as a kubelet that was started anew finds it.
func found(r *rig, pod *corev1.Pod) *kubelet.Volume {
	r.Helper()
	v, err := r.kubelet.Reconstruct(pod, "secrets")
	if err != nil {
		r.Fatal(err)
	}
	return v
}

// Without its records a driver finds volumes that are mounted and does not know what they hold. It takes them over in place.
func TestRootRegistryLost(t *testing.T) {
	r := newRig(t, rotation("1h")...)
	p := r.provide(r.driver.Providers, "numbers")
	last := p.counting(0)
	r.class("numbers", "numbers", nil, "a: b")
	var vs []*kubelet.Volume
	var targets []string
	for range 3 {
		_, v := r.podOf("numbers")
		r.mustPublish(v)
		vs, targets = append(vs, v), append(targets, v.Target)
	}
	readers := watchVolumes(t, targets...)
	folder := filepath.Join(r.driver.State, recordsFolder)
	for _, tc := range damages(folder, len(vs)) {
		t.Run(tc.name, func(t *testing.T) {
			devices, asked := devicesOf(r, targets), last.Load()
			r.driver.Stop()
			if err := tc.do(); err != nil {
				t.Fatal(err)
			}
			r.driver.Start()
			for range 2 {
				for _, v := range vs {
					r.mustRepublish(v)
				}
			}
			if got := devicesOf(r, targets); !slices.Equal(got, devices) {
				t.Errorf("volumes were mounted anew: devices were %v and are %v", devices, got)
			}
			want := int64(len(vs)) // each is fetched once
			if tc.name == "nothing" {
				want = 0
			}
			if got := last.Load() - asked; got != want {
				t.Errorf("the provider was asked %d times, want %d", got, want)
			}
			if tc.unusable {
				if err := os.Remove(folder); err != nil {
					t.Fatal(err)
				}
				return
			}
			if ids, _ := r.records(r.driver.State); len(ids) != len(vs) {
				t.Errorf("there are records of %v", ids)
			}
		})
	}

	// A provider that is away does not matter to what is there.
	r.driver.Stop()
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	p.fail(errors.New("down"))
	r.driver.Start()
	for _, v := range vs {
		r.mustRepublish(v)
	}
	if err := readers.stop(); err != nil {
		t.Error(err)
	}
	for _, v := range vs {
		r.mustUnpublish(v)
		r.wantNothing(v)
	}
}

// A damage is something that befalls the folder of records while no driver runs.
type damage struct {
	name string
	do   func() error
	// unusable says that the folder stays so, and volumes are not remembered.
	unusable bool
}

// damages lists what may befall a folder with so many records.
func damages(folder string, records int) []damage {
	each := func(change func(path string) error) func() error {
		return func() error {
			paths, err := filepath.Glob(filepath.Join(folder, "*"))
			if len(paths) != records {
				return fmt.Errorf("there are %d records", len(paths))
			}
			for _, path := range paths {
				err = errors.Join(err, change(path))
			}
			return err
		}
	}
	return []damage{
		{"nothing", func() error { return nil }, false},
		{"folder removed", func() error { return os.RemoveAll(folder) }, false},
		{"records cut short", each(func(path string) error { return os.Truncate(path, 30) }), false},
		{"records of garbage", each(func(path string) error { return os.WriteFile(path, []byte("\x00{]"), 0o600) }), false},
		{"records are folders", each(func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }), false},
		{"a file in place of the folder", func() error { return errors.Join(os.RemoveAll(folder), os.WriteFile(folder, nil, 0o600)) }, true},
	}
}

func devicesOf(r *rig, targets []string) (devices []uint64) {
	r.Helper()
	for _, target := range targets {
		devices = append(devices, r.device(target))
		if n := r.mountsAt(target); n != 1 {
			r.Errorf("%d mounts at %s", n, target)
		}
	}
	return devices
}

// Two calls for one target at the same time, as when kubelet was restarted while its first call was under way.
func TestRootTwoPublishesAtOnce(t *testing.T) {
	r := newRig(t, rotation("1ms")...)
	p := r.provide(r.driver.Providers, "slow")
	r.class("slow", "slow", nil, "a: b")
	pod, v := r.podOf("slow")
	other, err := r.kubelet.Volume(pod, "secrets")
	if err != nil {
		t.Fatal(err)
	}
	both := func(one, two func(context.Context) error) {
		t.Helper()
		asked, answer := make(chan struct{}, 4), make(chan struct{})
		p.do(func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
			asked <- struct{}{}
			<-answer
			return content("v1", "a"), nil
		})
		logged := len(r.driver.Log())
		ended := make(chan error, 2)
		go func() { ended <- one(t.Context()) }()
		<-asked
		go func() { ended <- two(t.Context()) }()
		r.driver.Await("the second call", func(context.Context) error {
			if n := strings.Count(r.driver.Log()[logged:], "msg=call volume="+v.ID); n != 2 {
				return fmt.Errorf("%d calls", n)
			}
			return nil
		})
		elapse(t, 100*time.Millisecond) // in which it would get as far as the first
		if len(asked) > 0 {
			t.Error("two calls for one volume work at the same time")
		}
		close(answer)
		for range 2 {
			if err := <-ended; err != nil && kubelet.OutcomeOf(err) != kubelet.Uncertain {
				t.Errorf("a call ended with %v", err)
			}
		}
		if n := r.mountsAt(v.Target); n != 1 {
			t.Errorf("%d mounts", n)
		}
		r.wantFiles(v, map[string]string{"a": "a v1"})
	}
	both(v.Publish, other.Publish)
	both(v.Republish, other.Republish)
	r.mustUnpublish(v)
	r.wantNothing(v)
	if ids, _ := r.records(r.driver.State); len(ids) > 0 {
		t.Errorf("records of %v are left", ids)
	}
}
