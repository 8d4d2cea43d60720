package publish_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/volume"
	"keymount/internal/volume/registry"
)

// fetchFunc is a provider that a test scripts.
type fetchFunc func(context.Context, *provider.Request) (*provider.Bundle, error)

func (f fetchFunc) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	return f(ctx, req)
}

// selfWriter is one that writes into the target itself.
type selfWriter struct{ fetchFunc }

func (selfWriter) MayWriteTarget() bool { return true }

// content is a bundle of one secret per path, each at version v.
func content(v string, paths ...string) *provider.Bundle {
	b := &provider.Bundle{}
	for _, p := range paths {
		b.Files = append(b.Files, provider.File{Path: p, Mode: 0o640, Contents: provider.Contents(p + " " + v), Object: "secret/" + p})
		b.Versions = append(b.Versions, provider.ObjectVersion{ID: "secret/" + p, Version: v})
	}
	return b
}

// bench is a publisher over real folders (or what store says), a real registry, and a provider that a test sets.
type bench struct {
	*publish.Publisher
	t        *testing.T
	cfg      publish.Config
	provider provider.Provider
	fetches  int           // without a lock: for tests that fetch one at a time
	skew     time.Duration // how far the clock that says when a volume is due is from the system's
	v        publish.Volume
}

func newBench(t *testing.T, change ...func(*publish.Config)) *bench {
	t.Helper()
	state, _, err := registry.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	b := &bench{t: t}
	b.cfg = publish.Config{Store: volume.Folder{}, Registry: state, Provider: func(name string) (provider.Provider, error) {
		if name != "fake" {
			return nil, &provider.Error{Kind: provider.Invalid, Message: `provider not found: provider "` + name + `"`}
		}
		return b.provider, nil
	}}
	b.cfg.Now = func() time.Time { return time.Now().Add(b.skew) }
	for _, c := range change {
		c(&b.cfg)
	}
	b.Publisher = publish.New(b.cfg)
	b.v = publish.Volume{
		ID: "csi-1", Target: filepath.Join(t.TempDir(), "pods", "mount"), Provider: "fake",
		Class: publish.Class{Namespace: "shop", Name: "db"},
		Request: provider.Request{
			Pod:        provider.Pod{Namespace: "shop", Name: "web-1"},
			Parameters: map[string]string{"objects": "a"},
		},
	}
	b.serve(content("v1", "a", "sub/b"))
	return b
}

// serve makes the provider answer with a bundle, fail with an error.
func (b *bench) serve(bundle *provider.Bundle) { b.answer(bundle, nil) }
func (b *bench) fail(err error)                { b.answer(nil, err) }
func (b *bench) answer(bundle *provider.Bundle, err error) {
	b.provider = fetchFunc(func(context.Context, *provider.Request) (*provider.Bundle, error) {
		b.fetches++
		return bundle, err
	})
}

func (b *bench) mustPublish() publish.Result {
	b.t.Helper()
	res, err := b.Publish(b.t.Context(), b.v)
	if err != nil {
		b.t.Fatal(err)
	}
	return res
}

// files returns path -> content of the volume, nil if there is none.
func (b *bench) files() map[string]string {
	b.t.Helper()
	gen, err := volume.Read(b.v.Target)
	if errors.Is(err, volume.ErrNoGeneration) {
		return nil
	} else if err != nil {
		b.t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range gen.Files {
		out[f.Path] = string(f.Contents)
	}
	return out
}

func (b *bench) wantFiles(want map[string]string) {
	b.t.Helper()
	if got := b.files(); !maps.Equal(got, want) {
		b.t.Errorf("the volume holds %v, want %v", got, want)
	}
}

// wantNothing checks that no volume and no folder is left.
func (b *bench) wantNothing() {
	b.t.Helper()
	if _, err := os.Lstat(b.v.Target); !errors.Is(err, fs.ErrNotExist) {
		b.t.Errorf("the target is still there (%v)", err)
	}
}

func (b *bench) wantState(err error, want publish.State) {
	b.t.Helper()
	var e *publish.Error
	if !errors.As(err, &e) {
		b.t.Fatalf("got %v, want a *publish.Error", err)
	}
	if e.State != want {
		b.t.Errorf("the state is %v, want %v: %v", e.State, want, err)
	}
}

var v1 = map[string]string{"a": "a v1", "sub/b": "sub/b v1"}

func TestFirstMount(t *testing.T) {
	b := newBench(t)
	var asked provider.Request
	serve := b.provider
	b.provider = fetchFunc(func(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
		asked = *req
		b.wantNothing() // content first, then the mount
		return serve.Fetch(ctx, req)
	})
	res := b.mustPublish()
	b.wantFiles(v1)
	if !res.First || !res.Fetched || res.Busy || !slices.Equal(res.Change.Added, []string{"a", "sub/b"}) {
		t.Errorf("result %+v", res)
	}
	want := []publish.FileInfo{
		{Path: "a", Mode: 0o640, Size: 4, Object: "secret/a", Version: "v1"},
		{Path: "sub/b", Mode: 0o640, Size: 8, Object: "secret/sub/b", Version: "v1"},
	}
	if !slices.Equal(res.Files, want) {
		t.Errorf("files %+v, want %+v", res.Files, want)
	}
	if asked.TargetPath != b.v.Target || asked.Mounted != nil || asked.Pod != b.v.Request.Pod {
		t.Errorf("the provider was asked %+v", asked)
	}
	rec, ok := b.cfg.Registry.Get("csi-1")
	if !ok || rec.LastFailure != nil || rec.LastSuccess.IsZero() || len(rec.Versions) != 2 || rec.Class.Name != "db" {
		t.Errorf("recorded %+v", rec)
	}
}

func TestRepublishOfAWholeVolumeDoesNothing(t *testing.T) {
	t.Attr("conformance", "12.8/republish-when-nothing-is-due")
	b := newBench(t)
	b.mustPublish()
	b.fail(errors.New("must not be asked"))
	res := b.mustPublish()
	if res.Fetched || res.First || b.fetches != 1 {
		t.Errorf("result %+v after %d fetches", res, b.fetches)
	}
	b.wantFiles(v1)
}

// What makes a volume less than whole, one thing each: Publish must fetch again.
func TestPublishOfWhatIsNotWholeFetches(t *testing.T) {
	t.Attr("conformance", "10.1/1-empty-unmounted-directory")
	save := func(b *bench, change func(*registry.Record)) {
		rec, _ := b.cfg.Registry.Get(b.v.ID)
		change(&rec)
		if err := b.cfg.Registry.Save(rec); err != nil {
			b.t.Fatal(err)
		}
	}
	for name, breakIt := range map[string]func(b *bench){
		"the target is gone":        func(b *bench) { b.must(os.RemoveAll(b.v.Target)) },
		"..data is gone":            func(b *bench) { b.must(os.Remove(filepath.Join(b.v.Target, "..data"))) },
		"the registry is lost":      func(b *bench) { b.must(b.cfg.Registry.Delete(b.v.ID)) },
		"the machine was restarted": func(b *bench) { save(b, func(r *registry.Record) { r.BootID = "another" }) },
		"another mount is there":    func(b *bench) { save(b, func(r *registry.Record) { r.Device++ }) },
		"it was never written well": func(b *bench) { save(b, func(r *registry.Record) { *r = never(*r) }) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.mustPublish()
			breakIt(b)
			b.provider = fetchFunc(func(_ context.Context, req *provider.Request) (*provider.Bundle, error) {
				if b.fetches++; req.Mounted != nil {
					t.Errorf("the provider was told that %v is mounted, which nobody knows", req.Mounted)
				}
				return content("v2", "a"), nil
			})
			if res := b.mustPublish(); !res.Fetched || b.fetches != 2 {
				t.Errorf("result %+v after %d fetches", res, b.fetches)
			}
			b.wantFiles(map[string]string{"a": "a v2"})
		})
	}
}

func never(r registry.Record) registry.Record {
	return registry.Record{Volume: r.Volume, Target: r.Target, BootID: r.BootID, Device: r.Device, Versions: r.Versions}
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// A volume that something else wrote (upstream's driver) is served further while it is taken over, and survives a failure.
func TestAdoption(t *testing.T) {
	b := newBench(t)
	b.must(volume.Folder{}.Mount(b.v.Target))
	if _, err := volume.Write(b.v.Target, content("old", "a").Files, volume.Options{}); err != nil {
		t.Fatal(err)
	}
	b.fail(&provider.Error{Kind: provider.Throttled, Message: "too many"})
	_, err := b.Publish(t.Context(), b.v)
	b.wantState(err, publish.Kept)
	b.wantFiles(map[string]string{"a": "a old"})

	b.serve(content("v1", "a", "sub/b"))
	if res := b.mustPublish(); res.Fetched {
		t.Error("asked again at once after a failure")
	}
	b.skew += 10 * time.Second
	res := b.mustPublish() // the failure before has not made it whole
	if !res.Fetched || res.First || !slices.Equal(res.Change.Updated, []string{"a"}) {
		t.Errorf("result %+v", res)
	}
	b.wantFiles(v1)
	if res := b.mustPublish(); res.Fetched {
		t.Error("an adopted volume is whole, and was fetched again")
	}
}

func TestRefresh(t *testing.T) {
	t.Attr("conformance", "12.4/current-versions")
	b := newBench(t)
	b.mustPublish()
	res, err := b.Refresh(t.Context(), b.v)
	if err != nil || !res.Fetched || !res.Change.Empty() || res.First || len(res.Files) != 2 {
		t.Errorf("unchanged: %+v, %v", res, err)
	}
	var mounted []provider.ObjectVersion
	b.provider = fetchFunc(func(_ context.Context, req *provider.Request) (*provider.Bundle, error) {
		mounted = req.Mounted
		return content("v2", "a", "c"), nil
	})
	res, err = b.Refresh(t.Context(), b.v)
	want := volume.Change{Added: []string{"c"}, Updated: []string{"a"}, Removed: []string{"sub/b"}}
	if err != nil || !slices.Equal(res.Change.Added, want.Added) || !slices.Equal(res.Change.Updated, want.Updated) ||
		!slices.Equal(res.Change.Removed, want.Removed) {
		t.Errorf("changed: %+v, %v", res, err)
	}
	if !slices.Equal(mounted, content("v1", "a", "sub/b").Versions) {
		t.Errorf("the provider was told that %v is mounted", mounted)
	}
	b.wantFiles(map[string]string{"a": "a v2", "c": "c v2"})
}

func TestFailedRefreshKeepsTheFilesAndSaysSo(t *testing.T) {
	t.Attr("conformance", "12.8/republish-failure")
	b := newBench(t)
	b.mustPublish()
	denied := &provider.Error{Kind: provider.Denied, Object: "secret/a", Message: "reading secret a: denied"}
	b.fail(provider.Errors{denied})
	_, err := b.Refresh(t.Context(), b.v)
	b.wantState(err, publish.Kept)
	if !errors.Is(err, denied) || provider.KindOf(err) != provider.Denied {
		t.Errorf("the cause is lost: %v", err)
	}
	b.wantFiles(v1)
	rec, _ := b.cfg.Registry.Get(b.v.ID)
	if rec.LastFailure == nil || rec.LastFailure.Kind != "denied" || !rec.LastAttempt.After(rec.LastSuccess) || len(rec.Versions) != 2 {
		t.Errorf("recorded %+v", rec)
	}
	if res := b.mustPublish(); res.Fetched {
		t.Error("a whole volume without an interval was fetched again")
	}
	b.serve(content("v2", "a"))
	if _, err := b.Refresh(t.Context(), b.v); err != nil {
		t.Fatal(err)
	}
	if rec, _ := b.cfg.Registry.Get(b.v.ID); rec.LastFailure != nil {
		t.Errorf("the failure is over, but still recorded: %+v", rec)
	}
}

func TestRefreshOfNothing(t *testing.T) {
	b := newBench(t)
	_, err := b.Refresh(t.Context(), b.v)
	b.wantState(err, publish.Undone)
	if !errors.Is(err, publish.ErrNotMounted) || b.fetches > 0 {
		t.Errorf("got %v after %d fetches", err, b.fetches)
	}
	b.wantNothing()
}

func TestUnpublish(t *testing.T) {
	t.Attr("conformance", "2.6/unpublish-again")
	b := newBench(t)
	b.mustPublish()
	for range 2 {
		b.must(b.Unpublish(t.Context(), b.v.ID, b.v.Target))
		b.wantNothing()
	}
	if _, ok := b.cfg.Registry.Get(b.v.ID); ok {
		t.Error("the record is still there")
	}
	if err := b.Unpublish(t.Context(), "", b.v.Target); err == nil {
		t.Error("an unpublish without an id succeeded")
	}
	if err := b.Unpublish(t.Context(), b.v.ID, "relative"); err == nil {
		t.Error("an unpublish of a relative target succeeded")
	}
}

// A provider that writes files itself finds the volume there, and its answer without files wipes nothing.
func TestSelfWritten(t *testing.T) {
	t.Attr("conformance", "12.4/files-absent")
	b := newBench(t)
	writes := 0
	b.provider = selfWriter{func(_ context.Context, req *provider.Request) (*provider.Bundle, error) {
		writes++
		err := os.WriteFile(filepath.Join(req.TargetPath, "own"), []byte("own"), 0o600)
		return &provider.Bundle{SelfWritten: true, Versions: []provider.ObjectVersion{{ID: "own"}}}, err
	}}
	res := b.mustPublish()
	if !res.SelfWritten || !res.First || len(res.Files) > 0 {
		t.Errorf("result %+v", res)
	}
	own := filepath.Join(b.v.Target, "own")
	if data, err := os.ReadFile(own); err != nil || string(data) != "own" {
		t.Errorf("the file holds %q, %v", data, err)
	}
}

func TestWhatFollowsAWrite(t *testing.T) {
	rec, syn := &recorder{failure: errors.New("no API server")}, &syncer{}
	b := newBench(t, func(c *publish.Config) { c.Status, c.Secrets = rec, syn })
	began := time.Now()
	res := b.mustPublish()
	if len(rec.results) != 1 || len(rec.results[0].Versions) != 2 || syn.files != 2 {
		t.Errorf("told %+v and %d files", rec.results, syn.files)
	}
	if syn.asOf.Before(began) || syn.asOf.After(time.Now()) {
		t.Errorf("Secrets are said to be as of %v; the call began after %v", syn.asOf, began)
	}
	if len(res.Unfinished) != 1 || !errors.Is(res.Unfinished[0], rec.failure) {
		t.Errorf("a failure that the mount survives must be in the result, got %v", res.Unfinished)
	}
	b.wantFiles(v1)
	b.mustPublish()
	if len(rec.results) != 1 || syn.calls != 1 {
		t.Error("told again although nothing was fetched")
	}
}

// Secrets are as old as the oldest read behind them, which another volume may have paid for before.
func TestSecretsAreAsOldAsTheirOldestRead(t *testing.T) {
	syn := &syncer{}
	b := newBench(t, func(c *publish.Config) { c.Secrets = syn })
	old := time.Now().Add(-4 * time.Second)
	b.provider = selfWriter{func(context.Context, *provider.Request) (*provider.Bundle, error) {
		return &provider.Bundle{SelfWritten: true, Versions: []provider.ObjectVersion{{ID: "own"}}, AsOf: old}, nil
	}}
	b.mustPublish()
	if !syn.asOf.Equal(old) {
		t.Errorf("as of %v, want %v", syn.asOf, old)
	}
}

type recorder struct {
	results  []publish.Result
	failures []error
	err      error // of RecordFailure
	failure  error // of RecordStatus
}

func (r *recorder) RecordFailure(_ context.Context, _ *publish.Volume, err error) error {
	r.failures = append(r.failures, err)
	return r.err
}

func (r *recorder) RecordStatus(_ context.Context, _ *publish.Volume, res *publish.Result) error {
	r.results = append(r.results, *res)
	return r.failure
}

type syncer struct {
	calls, files int
	asOf         time.Time
}

func (s *syncer) SyncSecrets(_ context.Context, _ *publish.Volume, b *provider.Bundle, asOf time.Time) {
	s.calls++
	s.files, s.asOf = len(b.Files), asOf
}
