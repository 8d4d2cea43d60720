//go:build integration && linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"keymount/api/provider/v1alpha1"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// odd is an answer whose ids and versions upstream 1.5.6 writes trimmed and 1.6.0 as they are.
func odd(v string, paths ...string) *v1alpha1.MountResponse {
	resp := content(v, paths...)
	for _, o := range resp.ObjectVersion {
		o.Version += "\n"
	}
	return resp
}

// A node that ran upstream's driver, 1.5.6 or 1.6.0, is given to Keymount under running pods, back to upstream and once more to
// Keymount: no remount, no moment without files, one status object all the time.
func TestRootAdoption(t *testing.T) {
	claim(t, "12.5/adopted", "12.5/handed-back", "12.5/layout", "12.2/spcps-name", "12.2/spcps-adopted")
	for _, tc := range []struct {
		name     string
		trims    bool
		rotation bool
	}{
		{"1.5.6 with rotation", true, true},
		{"1.6.0 with rotation", false, true},
		{"1.6.0 without rotation", false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			opt := driver.Options{}
			if tc.rotation {
				opt.Args = upstreamRotation()
			}
			r := newNode(t, opt)
			r.class("app", "other", nil, "key: value")
			p := r.provide(r.driver.Providers, "other")
			p.say(odd("v1", "a", "sub/b"))
			v := r.volume("app")

			_, stop := r.upstream(tc.trims, odd("v1", "a", "sub/b"))
			r.register()
			r.mustPublish(v)
			r.wantTree(v, map[string]string{"a": "a v1", "sub/b": "sub/b v1"})
			mount, link, status := r.mountAt(v), dataLink(v), r.onlyStatus()
			wantMode(t, v.Target, "dtrwxrwxrwx")
			reader := read(t, v.Target, "a", "sub/b")
			stop()

			r.driver.Start()
			r.register()
			r.mustRepublish(v)
			if got := r.onlyStatus(); got.GetResourceVersion() != status.GetResourceVersion() {
				t.Errorf("the status object was written: %v, was %v", got, status)
			}
			if asked := len(p.asked()); asked > 1 || (asked == 1) != tc.rotation {
				t.Errorf("the provider was asked %d times", asked)
			}
			if got := dataLink(v); got != link {
				t.Errorf("..data points to %s, was %s: the content is the same", got, link)
			}
			if tc.rotation {
				r.refreshes(v, p, mount)
				r.handBack(v, tc.trims, mount)
			} else {
				p.say(odd("v2", "a", "sub/b"))
				r.mustRepublish(v)
			}
			if got := r.mountAt(v); got != mount {
				t.Errorf("it is another mount: %v, was %v", got, mount)
			}
			if got := r.onlyStatus(); got.GetUID() != status.GetUID() {
				t.Error("it is another status object")
			}
			reader.stop()
			r.mustUnpublish(v)
		})
	}
}

// refreshes checks that an adopted volume follows its provider, as its own would.
func (r *rig) refreshes(v *kubelet.Volume, p *scripted, mount mounted) {
	r.Helper()
	p.say(odd("v2", "a", "sub/b", "c"))
	r.mustRepublish(v)
	r.wantTree(v, map[string]string{"a": "a v2", "c": "c v2", "sub/b": "sub/b v2"})
	if got := objectsIn(r.onlyStatus()); got != "secret/a=v2\n secret/c=v2\n secret/sub/b=v2\n" {
		r.Errorf("status lists %q", got)
	}
	if asked := p.asked(); len(asked[0].CurrentObjectVersion) != 0 || len(asked[1].CurrentObjectVersion) != 2 {
		r.Errorf("told of %v and then of %v", asked[0].CurrentObjectVersion, asked[1].CurrentObjectVersion)
	}
}

// handBack lets upstream's driver update a volume of Keymount's, and Keymount go on from there.
func (r *rig) handBack(v *kubelet.Volume, trims bool, mount mounted) {
	r.Helper()
	r.driver.Stop()
	_, stop := r.upstream(trims, odd("v3", "a", "sub/b", "d"))
	r.register()
	r.mustRepublish(v)
	r.wantTree(v, map[string]string{"a": "a v3", "d": "d v3", "sub/b": "sub/b v3"})
	stop()

	r.driver.Start()
	r.register()
	r.mustRepublish(v) // the provider's answer is still the second one
	r.wantTree(v, map[string]string{"a": "a v2", "c": "c v2", "sub/b": "sub/b v2"})
	if got := objectsIn(r.onlyStatus()); got != "secret/a=v2\n secret/c=v2\n secret/sub/b=v2\n" {
		r.Errorf("status lists %q", got)
	}
	entries, err := os.ReadDir(v.Target)
	if err != nil || len(entries) != 5 { // a, c, sub, ..data and one generation
		r.Errorf("something is left: %v (%v)", entries, err)
	}
}

// What Keymount mounted is upstream's to unmount, and what upstream mounted is Keymount's.
func TestRootEitherUnmounts(t *testing.T) {
	claim(t, "12.5/unmounted-by-either")
	r := newNode(t, driver.Options{})
	r.class("app", "other", nil, "key: value")
	r.provide(r.driver.Providers, "other")
	theirs := r.volume("app")
	_, stop := r.upstream(false, content("v1", "a"))
	r.register()
	r.mustPublish(theirs)
	stop()

	r.driver.Start()
	r.register()
	ours := r.volume("app")
	r.mustPublish(ours)
	r.mustUnpublish(theirs)
	r.driver.Stop()

	_, stop = r.upstream(false, content("v1", "a"))
	defer stop()
	r.register()
	r.mustUnpublish(ours)
}

// Files that a provider wrote itself, under upstream's driver, stay readable while the volume changes hands.
func TestRootAdoptOwn(t *testing.T) {
	claim(t, "12.5/adopted-self-written")
	for _, rotation := range []bool{true, false} {
		t.Run(fmt.Sprintf("rotation %v", rotation), func(t *testing.T) {
			opt := driver.Options{}
			if rotation {
				opt.Args = upstreamRotation()
			}
			r := newNode(t, opt)
			r.class("app", "aws", nil, "objects: some")
			p := r.provide(r.driver.Providers, "aws")
			store := &awsStore{values: map[string]string{"a": "one"}}
			p.do(store.mount)
			v := r.volume("app")

			u, stop := r.upstream(false, store.versions())
			u.write = func(target string) error { return writeOwn(target, "a", "one") }
			r.register()
			r.mustPublish(v)
			mount, status := r.mountAt(v), r.onlyStatus()
			reader := read(t, v.Target, "a")
			stop()

			r.driver.Start()
			r.register()
			r.mustRepublish(v)
			r.mustRepublish(v)
			r.wantTree(v, map[string]string{"a": "one"})
			if r.mountAt(v) != mount || r.onlyStatus().GetResourceVersion() != status.GetResourceVersion() {
				t.Error("it was mounted anew, or its status written")
			}
			store.put("a", "two")
			r.mustRepublish(v)
			want := map[bool]string{true: "two", false: "one"}[rotation]
			r.wantTree(v, map[string]string{"a": want})
			reader.stop()
			r.mustUnpublish(v)
		})
	}
}

func (r *rig) onlyStatus() *unstructured.Unstructured {
	r.Helper()
	list := r.statuses()
	if len(list) != 1 {
		r.Fatalf("%d status objects: %v", len(list), list)
	}
	return &list[0]
}

// objectsIn writes what a status object lists as "id=version id=version".
func objectsIn(object *unstructured.Unstructured) string {
	list, _, _ := unstructured.NestedSlice(object.Object, "status", "objects")
	var parts []string
	for _, o := range list {
		m := o.(map[string]any)
		version, _ := m["version"].(string)
		parts = append(parts, m["id"].(string)+"="+version)
	}
	return strings.Join(parts, " ")
}

// A reading reads files of a volume again and again, as an application does, and reports every time that it cannot.
type reading struct {
	t    *testing.T
	done atomic.Bool
	all  sync.WaitGroup
}

func read(t *testing.T, target string, files ...string) *reading {
	rd := &reading{t: t}
	started := make(chan struct{})
	rd.all.Go(func() {
		for n := 0; !rd.done.Load() && rd.once(target, files); n++ {
			if n == 0 {
				close(started)
			}
		}
	})
	<-started
	t.Cleanup(func() { rd.done.Store(true); rd.all.Wait() })
	return rd
}

// once reads all files of one generation, or those that a provider wrote beside.
func (rd *reading) once(target string, files []string) bool {
	for {
		generation, _ := os.Readlink(filepath.Join(target, "..data"))
		err := readAll(filepath.Join(target, generation), files)
		if err == nil {
			return true
		}
		// One that fell away meanwhile was replaced by another.
		if after, _ := os.Readlink(filepath.Join(target, "..data")); after == generation {
			rd.t.Errorf("not readable at some moment: %v", err)
			return false
		}
	}
}

func readAll(dir string, files []string) error {
	version := ""
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		_, v, _ := strings.Cut(string(text), " ")
		if len(text) == 0 || version != "" && v != version {
			return fmt.Errorf("%s holds %q beside files of version %s", name, text, version)
		}
		version = v
	}
	return nil
}

func (rd *reading) stop() {
	rd.done.Store(true)
	rd.all.Wait()
}
