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

	"keymount/test/integration/driver"
)

// During an upgrade two drivers run on a node. The later waits for the earlier, however that ends.
func TestRootTwoDrivers(t *testing.T) {
	r := newRig(t, rotation("1ms")...)
	last := r.provide(r.driver.Providers, "numbers").counting(0)
	r.class("numbers", "numbers", nil, "a: b")
	_, v := r.podOf("numbers")
	r.mustPublish(v)
	device := r.device(v.Target)
	readers := watchVolumes(t, v.Target)
	earlier := r.driver
	later := driver.New(t, api, driver.Options{Args: rotation("1ms")})
	later.Kubelet, later.Providers, later.MoreProviders, later.State, later.Registration, later.Endpoint =
		earlier.Kubelet, earlier.Providers, earlier.MoreProviders, earlier.State, earlier.Registration, earlier.Endpoint
	for _, end := range []struct {
		how string
		do  func(*driver.Driver)
	}{
		{"stopped", (*driver.Driver).Stop},
		{"killed", (*driver.Driver).Kill},
	} {
		later.Launch()
		later.Await("the later driver to wait", func(context.Context) error {
			code, body, err := later.Get("readyz")
			if err == nil && (code != 503 || !strings.Contains(body, "waiting for the driver that holds "+earlier.State)) {
				err = fmt.Errorf("readyz: %d %q", code, body)
			}
			return err
		})
		later.Await("the later driver to log what it waits for", func(context.Context) error {
			if !strings.Contains(later.Log(), "waiting for the driver that holds the state folder") {
				return errors.New("nothing is logged")
			}
			return nil
		})
		for range 10 { // a while, in which kubelet goes on to ask
			r.mustRepublish(v)
			if code, body, err := later.Get("healthz"); code != 200 {
				t.Errorf("the driver that waits is not alive: %d %q, %v", code, body, err)
			}
			if code, body, err := earlier.Get("readyz"); code != 200 {
				t.Errorf("the driver that serves is not ready: %d %q, %v", code, body, err)
			}
		}
		if strings.Contains(later.Log(), "msg=serving") && end.how == "stopped" {
			t.Error("the later driver serves beside the earlier")
		}
		end.do(earlier)
		if said := strings.Contains(earlier.Log(), "stopped serving"); said != (end.how == "stopped") {
			t.Errorf("the driver was %s, and its log says that it stopped: %v", end.how, said)
		}
		if _, err := r.kubelet.Register(t.Context(), r.driver.Registration); err != nil {
			t.Fatalf("the earlier was %s: %v", end.how, err)
		}
		later.Await("the later driver to be ready", func(context.Context) error {
			code, body, err := later.Get("readyz")
			if err == nil && code != 200 {
				err = fmt.Errorf("readyz: %d %q", code, body)
			}
			return err
		})
		before := last.Load()
		r.mustRepublish(v)
		if last.Load() == before {
			t.Error("the later driver did not refresh the volume")
		}
		earlier, later = later, earlier
	}
	if got := r.device(v.Target); got != device || r.mountsAt(v.Target) != 1 {
		t.Errorf("device %d became %d, %d mounts", device, got, r.mountsAt(v.Target))
	}
	if err := readers.stop(); err != nil {
		t.Error(err)
	}
	r.mustUnpublish(v)
	r.wantNothing(v)
}

// A state folder that is full or cannot be written costs the node its memory of volumes, and pods nothing.
func TestRootStateFolderUnusable(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options string
		says    string
	}{
		{"full", "size=64k", "no space left on device"},
		{"read-only", "ro", "the state folder cannot be used"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			state := stateFolder(t)
			r := newRigWith(t, driver.Options{Args: append(rotation("1ms"), "--state-dir="+state)})
			r.driver.Stop()
			filler := filepath.Join(state, "filler")
			if tc.options == "ro" {
				remount(t, state, syscall.MS_RDONLY)
			} else {
				fill(t, filler)
			}
			last := r.provide(r.driver.Providers, "numbers").counting(0)
			r.class("numbers", "numbers", nil, "a: b")
			_, v := r.podOf("numbers")
			_, w := r.podOf("numbers")
			logged := len(r.driver.Log())
			r.driver.Start()
			r.mustPublish(v)
			r.mustPublish(w)
			r.mustRepublish(v)
			readers := watchVolumes(t, v.Target, w.Target)
			device := r.device(v.Target)
			if n := errorsWith(r.driver.Log()[logged:], tc.says); n != 1 {
				t.Errorf("the log says %d times %q, want it once", n, tc.says)
			}
			r.driver.Kill() // nothing is remembered
			r.driver.Start()
			asked := last.Load()
			r.mustRepublish(v)
			if got := r.device(v.Target); got != device || last.Load() == asked {
				t.Errorf("device %d became %d, asked %v", device, got, last.Load() != asked)
			}
			if _, err := r.kubelet.Register(t.Context(), r.driver.Registration); err != nil {
				t.Fatal(err)
			}
			if code, body, err := r.driver.Get("readyz"); code != 200 {
				t.Errorf("readyz: %d %q, %v", code, body, err)
			}
			readers.remove(w.Target)
			r.mustUnpublish(w)
			r.wantNothing(w)
			if tc.options != "ro" {
				if err := os.Remove(filler); err != nil {
					t.Fatal(err)
				}
				r.mustRepublish(v)
				if ids, _ := r.records(state); !slices.Equal(ids, []string{v.ID}) {
					t.Errorf("with room again there are records of %v", ids)
				}
			}
			if err := readers.stop(); err != nil {
				t.Error(err)
			}
			r.mustUnpublish(v)
			r.wantNothing(v)
		})
	}
}

// errorsWith counts lines of errors that hold a text.
func errorsWith(log, text string) (n int) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "level=ERROR") && strings.Contains(line, text) {
			n++
		}
	}
	return n
}
