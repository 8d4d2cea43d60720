//go:build integration && linux

package binaries

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// pinned is a source folder with one small program, so that a test builds for real in a moment.
func pinned(t *testing.T, main string) *builder {
	t.Helper()
	source := t.TempDir()
	for name, text := range map[string]string{
		"small/go.mod": "module small\n\ngo 1.26.0\n", "small/go.sum": "", "small/main.go": main,
	} {
		path := filepath.Join(source, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &builder{
		source:   source,
		cache:    filepath.Join(t.TempDir(), "binaries"),
		programs: map[string]program{"small": {module: "small", pkg: "small", ldflags: "-s -w", takes: "a moment", asset: true}},
		log:      io.Discard,
	}
}

const hello = "package main\n\nfunc main() { println(\"hello\") }\n"

func TestBuildsWhatIsMissingOnce(t *testing.T) {
	b := pinned(t, hello)
	var log bytes.Buffer
	b.log = &log
	first, err := b.ensure(t.Context(), []string{"small"})
	if err != nil {
		t.Fatal(err)
	}
	if !executable(first[0]) || !strings.Contains(log.String(), "building small") || !strings.Contains(log.String(), "built small in ") {
		t.Errorf("%s is not there, or the log does not say what was built: %s", first[0], &log)
	}
	log.Reset()
	second, err := b.ensure(t.Context(), []string{"small"})
	if err != nil || !slices.Equal(first, second) || log.Len() > 0 {
		t.Errorf("the second call gave %v, %v and said %q; want %v and silence", second, err, &log, first)
	}
}

func TestBuildersAtOnceBuildOnce(t *testing.T) {
	one := pinned(t, hello)
	logs := make([]bytes.Buffer, 3)
	var wg sync.WaitGroup
	for i := range logs {
		b := *one
		b.log = &logs[i]
		wg.Go(func() {
			if _, err := b.ensure(t.Context(), []string{"small"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	builds := 0
	for i := range logs {
		builds += strings.Count(logs[i].String(), "built small")
	}
	if builds != 1 {
		t.Errorf("%d builders built, want 1", builds)
	}
}

func TestFailedBuildLeavesNoProgram(t *testing.T) {
	b := pinned(t, "package main\n\nfunc main() { undefined() }\n")
	var log bytes.Buffer
	b.log = &log
	if paths, err := b.ensure(t.Context(), []string{"small"}); err == nil {
		t.Errorf("a program that does not compile was built: %v", paths)
	}
	path, err := b.find("small")
	if err != nil {
		t.Fatal(err)
	}
	if executable(path) || !strings.Contains(log.String(), "undefined") {
		t.Errorf("%s must not be there and the compiler's words must be: %s", path, &log)
	}
}

func TestKeyFollowsWhatIsPinned(t *testing.T) {
	b := pinned(t, hello)
	before, err := b.find("small")
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*builder){
		func(b *builder) {
			if err := os.WriteFile(filepath.Join(b.source, "small", "go.sum"), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		},
		func(b *builder) { b.programs["small"] = program{module: "small", pkg: "small", ldflags: "-w"} },
		func(b *builder) {
			b.programs["small"] = program{module: "small", pkg: "small", ldflags: "-s -w", tags: "x"}
		},
		func(b *builder) {
			b.programs["small"] = program{module: "small", pkg: "small", ldflags: "-s -w", cgo: true}
		},
	} {
		changed := pinned(t, hello)
		changed.cache = b.cache
		change(changed)
		after, err := changed.find("small")
		if err != nil || after == before {
			t.Errorf("a changed pin gives %s, %v, as before", after, err)
		}
	}
}

func TestAssetsAreUsedAndNeverBuilt(t *testing.T) {
	b := pinned(t, hello)
	b.assets = t.TempDir()
	if paths, err := b.ensure(t.Context(), []string{"small"}); err == nil || !strings.Contains(err.Error(), AssetsEnv) {
		t.Errorf("with an asset missing: %v, %v; want an error that names %s", paths, err, AssetsEnv)
	}
	want := filepath.Join(b.assets, "small")
	if err := os.WriteFile(want, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	paths, err := b.ensure(t.Context(), []string{"small"})
	if err != nil || !slices.Equal(paths, []string{want}) {
		t.Errorf("got %v, %v; want %s", paths, err, want)
	}
}

func TestWaitingForTheLockEndsWithTheContext(t *testing.T) {
	b := pinned(t, hello)
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		t.Fatal(err)
	}
	unlock, err := lock(t.Context(), filepath.Join(b.cache, "lock"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.ensure(ctx, []string{"small"}); err == nil || !strings.Contains(err.Error(), "lock") {
		t.Errorf("got %v, want an error that names the lock", err)
	}
}

// Every pinned program belongs to a module that says so itself: `go mod tidy` there would drop it otherwise.
func TestProgramsArePinnedAsTools(t *testing.T) {
	for name, p := range programs() {
		text, err := os.ReadFile(filepath.Join(p.module, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), p.pkg+"\n") {
			t.Errorf("%s: %s/go.mod has no tool directive for %s", name, p.module, p.pkg)
		}
	}
}

func TestUnknownProgram(t *testing.T) {
	if _, err := Ensure(t.Context(), io.Discard, "no-such-program"); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("got %v", err)
	}
}
