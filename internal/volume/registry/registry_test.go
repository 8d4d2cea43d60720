package registry_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keymount/internal/provider"
	"keymount/internal/volume/registry"
)

func record() registry.Record {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	return registry.Record{
		Volume: "csi-1234", Target: "/var/lib/kubelet/pods/x/mount", Provider: "azure",
		Class:  registry.Class{Namespace: "ns", Name: "class"},
		BootID: "boot", Device: 42,
		Versions:    []provider.ObjectVersion{{ID: "secret/a", Version: "1"}, {ID: "secret/a", Version: "2"}},
		LastSuccess: at, LastAttempt: at.Add(time.Minute),
		LastFailure: &registry.Failure{Kind: "denied", Message: "no"},
	}
}

func open(t *testing.T, folder string) (*registry.Registry, []error) {
	t.Helper()
	r, warnings, err := registry.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, warnings
}

func mustSave(t *testing.T, r *registry.Registry, rec registry.Record) {
	t.Helper()
	if err := r.Save(rec); err != nil {
		t.Fatal(err)
	}
}

// Volume ids are whatever the caller of the CSI socket says. Each must survive a restart and must not name a file elsewhere.
func TestRecordsSurviveARestart(t *testing.T) {
	ids := []string{
		"csi-1234", "../../etc/passwd", "/", ".", "..", "a/b", "A", "a", "\x00", "x\ny", strings.Repeat("l", 4096), "unicode-é", ".tmp-1", "c.json",
	}
	folder := filepath.Join(t.TempDir(), "state", "volumes")
	r, _ := open(t, folder)
	for i, id := range ids {
		rec := record()
		rec.Volume, rec.Device = id, uint64(i)
		mustSave(t, r, rec)
	}
	again, warnings := open(t, folder)
	if len(warnings) != 0 {
		t.Errorf("warnings: %v", warnings)
	}
	if got := len(again.All()); got != len(ids) {
		t.Errorf("%d records, want %d", got, len(ids))
	}
	for i, id := range ids {
		want := record()
		want.Volume, want.Device = id, uint64(i)
		if got, ok := again.Get(id); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("record of %q is %+v, %v", id, got, ok)
		}
	}
	entries, _ := os.ReadDir(folder)
	if len(entries) != len(ids) {
		t.Errorf("%d files, want %d", len(entries), len(ids))
	}
	info, _ := os.Stat(folder)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("folder has mode %o", info.Mode().Perm())
	}
}

func TestDelete(t *testing.T) {
	folder := t.TempDir()
	r, _ := open(t, folder)
	mustSave(t, r, record())
	for range 2 { // the second time there is nothing to delete
		if err := r.Delete("csi-1234"); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := r.Get("csi-1234"); ok {
		t.Error("a deleted record is still there")
	}
	if again, _ := open(t, folder); len(again.All()) != 0 {
		t.Error("a deleted record is back after a restart")
	}
}

// Whatever a crash, a full disk or somebody else left is ignored, reported, and replaced by the next save.
func TestDamagedFilesAreIgnoredAndReplaced(t *testing.T) {
	damage := map[string]func(t *testing.T, name string){
		"empty":     func(t *testing.T, name string) { must(t, os.WriteFile(name, nil, 0o600)) },
		"cut short": func(t *testing.T, name string) { must(t, os.Truncate(name, 40)) },
		"garbage":   func(t *testing.T, name string) { must(t, os.WriteFile(name, []byte("\x00\xff{"), 0o600)) },
		"other format": func(t *testing.T, name string) {
			must(t, os.WriteFile(name, []byte(`{"format":99,"volume":"csi-1234"}`), 0o600))
		},
		"of another volume": func(t *testing.T, name string) {
			must(t, os.WriteFile(name, []byte(`{"format":1,"volume":"other"}`), 0o600))
		},
		"a folder": func(t *testing.T, name string) { must(t, os.Remove(name)); must(t, os.MkdirAll(name+"/x", 0o700)) },
		"a link to a record": func(t *testing.T, name string) {
			must(t, os.Rename(name, name+".away"))
			must(t, os.Symlink(name+".away", name))
		},
		"huge": func(t *testing.T, name string) { must(t, os.Truncate(name, 5<<20)) },
	}
	for name, break_ := range damage {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			r, _ := open(t, folder)
			mustSave(t, r, record())
			files, _ := filepath.Glob(folder + "/*.json")
			if len(files) != 1 {
				t.Fatalf("files: %v", files)
			}
			break_(t, files[0])
			again, warnings := open(t, folder)
			if len(warnings) == 0 || !strings.Contains(warnings[0].Error(), "ignoring") {
				t.Errorf("warnings: %v", warnings)
			}
			if _, ok := again.Get("csi-1234"); ok {
				t.Error("a damaged record was believed")
			}
			mustSave(t, again, record())
			third, _ := open(t, folder)
			if got, ok := third.Get("csi-1234"); !ok || !reflect.DeepEqual(got, record()) {
				t.Errorf("after the next save the record is %+v, %v", got, ok)
			}
		})
	}
}

func TestTemporaryFilesOfAKilledProcessAreRemoved(t *testing.T) {
	folder := t.TempDir()
	must(t, os.WriteFile(folder+"/.tmp-abc", []byte("{"), 0o600))
	_, warnings := open(t, folder)
	if len(warnings) != 0 {
		t.Errorf("warnings: %v", warnings)
	}
	if entries, _ := os.ReadDir(folder); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

func TestBounds(t *testing.T) {
	folder := t.TempDir()
	r, _ := open(t, folder)
	rec := record()
	rec.LastFailure = registry.FailureOf(&provider.Error{Kind: provider.Throttled, Message: strings.Repeat("é", 4000) + "\xff"})
	for range 100_000 {
		rec.Versions = append(rec.Versions, provider.ObjectVersion{ID: "secret/some-object", Version: "0123456789abcdef0123456789abcdef"})
	}
	mustSave(t, r, rec)
	again, warnings := open(t, folder)
	got, ok := again.Get(rec.Volume)
	if !ok || len(warnings) != 0 {
		t.Fatalf("a large record was not kept at all: %v", warnings)
	}
	if got.Versions != nil {
		t.Error("versions beyond the bound were kept")
	}
	if got.LastFailure.Kind != "throttled" || len(got.LastFailure.Message) > registry.MaxMessage || !strings.HasSuffix(got.LastFailure.Message, "é...") {
		t.Errorf("failure is kept as %q", got.LastFailure)
	}
	for name, id := range map[string]string{"no id": "", "a long id": strings.Repeat("x", 4097), "not UTF-8": "\xff"} {
		rec := record()
		rec.Volume = id
		if r.Save(rec) == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if registry.FailureOf(nil) != nil {
		t.Error("no error became a failure")
	}
}

func TestSaveFromManyGoroutines(t *testing.T) {
	folder := t.TempDir()
	r, _ := open(t, folder)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				rec := record()
				rec.Volume, rec.Device = string(rune('a'+i%4)), uint64(j)
				if err := r.Save(rec); err != nil {
					t.Error(err)
				}
				r.Get(rec.Volume)
				r.All()
			}
		})
	}
	wg.Wait()
	again, warnings := open(t, folder)
	if len(warnings) != 0 || len(again.All()) != 4 {
		t.Errorf("%d records, warnings %v", len(again.All()), warnings)
	}
	for _, rec := range r.All() {
		if got, _ := again.Get(rec.Volume); !reflect.DeepEqual(got, rec) {
			t.Errorf("memory and file differ: %+v, %+v", rec, got)
		}
	}
}

func TestLockWaitsForTheOtherHolder(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		first, err := registry.AcquireLock(t.Context(), folder)
		must(t, err)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := registry.AcquireLock(short, folder); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a held lock was given out: %v", err)
		}
		got := make(chan error)
		go func() {
			second, err := registry.AcquireLock(t.Context(), folder)
			if err == nil {
				err = second.Release()
			}
			got <- err
		}()
		synctest.Wait() // the second one has asked, and waits for its ticker
		select {
		case err := <-got:
			t.Fatalf("the second holder did not wait: %v", err)
		default:
		}
		must(t, first.Release())
		must(t, <-got)
	})
}

// FuzzLoad: no file in the folder, whatever is in it, stops the daemon from starting or from saving.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"format":1,"volume":"csi-1234","versions":[{"ID":"a","Version":"b"}]}`))
	f.Add([]byte(`{"format":1,"volume":"csi-1234","lastSuccess":"never"}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		folder := t.TempDir()
		r, _ := open(t, folder)
		mustSave(t, r, record())
		files, _ := filepath.Glob(folder + "/*.json")
		must(t, os.WriteFile(files[0], data, 0o600))
		again, warnings := open(t, folder)
		if len(again.All())+len(warnings) != 1 {
			t.Errorf("%d records and %d warnings of one file", len(again.All()), len(warnings))
		}
		mustSave(t, again, record())
		third, warnings := open(t, folder)
		if got, ok := third.Get("csi-1234"); !ok || len(warnings) != 0 || !reflect.DeepEqual(got, record()) {
			t.Errorf("after the next save: %+v, %v, %v", got, ok, warnings)
		}
	})
}

func BenchmarkSave(b *testing.B) {
	r, _, err := registry.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Save(record()); err != nil {
			b.Fatal(err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestInMemory(t *testing.T) {
	r := registry.InMemory()
	want := registry.Record{Volume: "v", Target: "/t"}
	if err := r.Save(want); err != nil {
		t.Fatal(err)
	}
	if got, ok := r.Get("v"); !ok || got.Target != "/t" || len(r.All()) != 1 {
		t.Errorf("got %+v", got)
	}
	if err := r.Delete("v"); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Get("v"); ok {
		t.Error("still there")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
