package publish_test

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

	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/volume"
	"keymount/internal/volume/registry"
	"keymount/internal/volume/volumetest"
)

// TestMain runs the tests of root in a mount namespace of their own.
func TestMain(m *testing.M) { os.Exit(volumetest.Main(m)) }

// rootBench is a bench over real tmpfs mounts.
func rootBench(t *testing.T) *bench {
	t.Helper()
	volumetest.NeedRoot(t)
	b := newBench(t, func(c *publish.Config) { c.Store = volume.Tmpfs{Size: 1 << 20} })
	t.Cleanup(func() { volume.Tmpfs{}.Unmount(b.v.Target) })
	return b
}

// mounts counts what is mounted at the target and beside it.
func (b *bench) mounts() int {
	b.t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	b.must(err)
	return strings.Count(string(table), " "+filepath.Dir(b.v.Target)+"/")
}

func TestRootPublishRefreshUnpublish(t *testing.T) {
	b := rootBench(t)
	b.mustPublish()
	b.wantFiles(v1)
	if n := b.mounts(); n != 1 {
		t.Errorf("%d mounts, want 1", n)
	}
	if res := b.mustPublish(); res.Fetched {
		t.Error("a whole volume was fetched again")
	}
	b.serve(content("v2", "a"))
	if _, err := b.Refresh(t.Context(), b.v); err != nil {
		t.Fatal(err)
	}
	b.wantFiles(map[string]string{"a": "a v2"})
	for range 2 {
		b.must(b.Unpublish(t.Context(), b.v.ID, b.v.Target))
		b.wantNothing()
	}
	if n := b.mounts(); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
}

// After a restart of the machine, or of a kubelet that cleaned up, the record and the folder are there but the mount is not.
func TestRootALostMountIsAFirstMount(t *testing.T) {
	t.Attr("conformance", "10.1/1-empty-unmounted-directory")
	b := rootBench(t)
	b.mustPublish()
	b.must(syscall.Unmount(b.v.Target, 0))
	b.serve(content("v2", "a"))
	if res := b.mustPublish(); !res.First {
		t.Errorf("result %+v", res)
	}
	b.wantFiles(map[string]string{"a": "a v2"})
}

// The content does not fit: the mount and the folder go away again, and the old content stays on a refresh.
func TestRootAWriteThatFailsIsUndone(t *testing.T) {
	b := rootBench(t)
	big := content("v1", "a")
	big.Files[0].Contents = make(provider.Contents, 2<<20)
	b.serve(big)
	_, err := b.Publish(t.Context(), b.v)
	b.wantState(err, publish.Undone)
	b.wantNothing()
	if n := b.mounts(); n != 0 {
		t.Errorf("%d mounts are left", n)
	}

	b.serve(content("v1", "a", "sub/b"))
	b.mustPublish()
	b.serve(big)
	_, err = b.Refresh(t.Context(), b.v)
	b.wantState(err, publish.Kept)
	b.wantFiles(v1)
}

// busy is a store whose mounts cannot be undone, as while another process works in them.
type busy struct{ volume.Tmpfs }

func (busy) Unmount(string) error { return errors.New("the target is busy") }

func TestRootAnUndoThatFailsIsNotFinal(t *testing.T) {
	t.Attr("conformance", "2.6/non-final-when-left")
	b := rootBench(t)
	b.cfg.Store = busy{}
	b.Publisher = publish.New(b.cfg)
	v := b.v
	v.Group = new(int)
	*v.Group = -1
	_, err := b.Publish(t.Context(), v)
	b.wantState(err, publish.Left)
	if strings.Count(err.Error(), "failed to mount") != 1 || !strings.Contains(err.Error(), "group -1") || !strings.Contains(err.Error(), "the target is busy") {
		t.Errorf("both reasons must be told, got %v", err)
	}
	// The next attempt finds the empty mount and fills it.
	b.mustPublish()
	b.wantFiles(v1)
	if n := b.mounts(); n != 1 {
		t.Errorf("%d mounts, want 1", n)
	}
}

// A provider wrote the files itself, under this driver or upstream's: whatever fails afterwards, pods keep them.
func TestRootSelfWrittenFilesSurvive(t *testing.T) {
	b := rootBench(t)
	b.must(volume.Tmpfs{}.Mount(b.v.Target))
	own := filepath.Join(b.v.Target, "own")
	b.must(os.WriteFile(own, []byte("theirs"), 0o644))
	holds := func(want string) {
		t.Helper()
		if data, err := os.ReadFile(own); err != nil || string(data) != want {
			t.Errorf("the file holds %q (%v), want %q", data, err, want)
		}
	}
	b.provider = selfWriter{failing(errors.New("down"))}
	_, err := b.Publish(t.Context(), b.v)
	b.wantState(err, publish.Left) // nothing says that this is more than a mount that was left over
	holds("theirs")

	b.provider = selfWriter{answering(&provider.Bundle{SelfWritten: true, Versions: []provider.ObjectVersion{{ID: "own"}}})}
	b.mustPublish()
	holds("theirs")

	b.provider = selfWriter{failing(errors.New("down"))}
	_, err = b.Refresh(t.Context(), b.v)
	b.wantState(err, publish.Kept) // now the registry knows
	holds("theirs")
}

// A fetch takes its time. What it brings must not land in the folder below a mount that has gone away meanwhile.
func TestRootNothingIsWrittenBelowALostMount(t *testing.T) {
	for name, writes := range map[string]bool{"refresh": false, "first mount of a provider that may write itself": true} {
		t.Run(name, func(t *testing.T) {
			b := rootBench(t)
			do := b.Publish
			if !writes {
				b.mustPublish()
				do = b.Refresh
			}
			unmounts := fetchFunc(func(context.Context, *provider.Request) (*provider.Bundle, error) {
				return content("v2", "a"), syscall.Unmount(b.v.Target, 0)
			})
			if b.provider = unmounts; writes {
				b.provider = selfWriter{unmounts}
			}
			_, err := do(t.Context(), b.v)
			b.wantState(err, publish.Left)
			if !errors.Is(err, publish.ErrNotMounted) {
				t.Errorf("got %v", err)
			}
			b.wantFiles(nil)
			b.serve(content("v3", "a"))
			b.mustPublish()
			b.wantFiles(map[string]string{"a": "a v3"})
			if n := b.mounts(); n != 1 {
				t.Errorf("%d mounts, want 1", n)
			}
		})
	}
}

// Files that a provider wrote itself are as good as any: a republish within the interval leaves it alone.
func TestRootSelfWrittenIsWhole(t *testing.T) {
	b := rootBench(t)
	b.v.Due = publish.Due{Every: time.Minute}
	fetches := 0
	b.provider = selfWriter{func(context.Context, *provider.Request) (*provider.Bundle, error) {
		fetches++
		versions := []provider.ObjectVersion{{ID: "own", Version: fmt.Sprint(fetches / 3)}, {ID: "other"}}
		if fetches == 2 {
			slices.Reverse(versions)
		}
		return &provider.Bundle{SelfWritten: true, Versions: versions}, nil
	}}
	b.mustPublish()
	b.mustPublish()
	if fetches != 1 {
		t.Errorf("%d fetches, want 1", fetches)
	}
	b.skew = time.Minute
	if res := b.mustPublish(); res.Changed() {
		t.Error("changed, with the versions of before in another order")
	}
	if fetches != 2 {
		t.Errorf("%d fetches after the interval, want 2", fetches)
	}
	b.skew *= 2
	if res := b.mustPublish(); !res.Changed() {
		t.Error("a new version is no change")
	}
}

func TestRootStorm(t *testing.T) { storm(t, rootBench(t), 3, 25) }

// A disk that has become read-only keeps no pod from going away.
func TestRootUnpublishWithAReadOnlyRegistry(t *testing.T) {
	volumetest.NeedRoot(t)
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	state, _, err := registry.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	seen := &observer{}
	b := newBench(t, func(c *publish.Config) { c.Registry, c.Observer = state, seen })
	b.mustPublish()
	b.must(syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	for range 2 {
		b.must(b.Unpublish(t.Context(), b.v.ID, b.v.Target))
	}
	b.wantNothing()
	if _, ok := state.Get(b.v.ID); ok {
		t.Error("the record is still believed")
	}
	if last := (*seen)[1]; last.Err != nil || len(last.Result.Unfinished) != 1 || !errors.Is(last.Result.Unfinished[0], registry.ErrUnwritten) {
		t.Errorf("nobody was told: %+v", last)
	}
}

// A process that ends between the write and the record leaves a volume that the next one completes, without rotation too:
// nobody else would tell what it holds.
func TestRootABegunVolumeIsCompleted(t *testing.T) {
	b := rootBench(t)
	b.v.Once = true
	b.mustPublish()
	rec, _ := b.cfg.Registry.Get(b.v.ID)
	rec.LastSuccess, rec.Versions = time.Time{}, nil // as recordBegin leaves it
	b.must(b.cfg.Registry.Save(rec))
	told := &recorder{}
	b.cfg.Status = told
	b.Publisher = publish.New(b.cfg)
	if res := b.mustPublish(); !res.Fetched || len(told.results) != 1 {
		t.Errorf("result %+v, told %d times", res, len(told.results))
	}
	b.mustPublish()
	if b.fetches != 2 {
		t.Errorf("%d fetches, want 2", b.fetches)
	}
}
