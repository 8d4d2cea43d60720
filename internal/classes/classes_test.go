package classes_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keymount/internal/classes"
	"keymount/internal/provider"
)

// A rig is a server and the look-up under test.
type rig struct {
	*server
	*classes.Classes
	t    *testing.T
	logs *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func newRig(t *testing.T, edits ...func(*server, *classes.Config)) *rig {
	t.Helper()
	s, logs := newServer(t), &logBuffer{}
	cfg := classes.Config{API: s.api(), Log: slog.New(slog.NewTextHandler(logs, nil)),
		FirstRetry: time.Millisecond, LastRetry: 2 * time.Millisecond}
	for _, edit := range edits {
		edit(s, &cfg)
	}
	c, err := classes.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{server: s, Classes: c, t: t, logs: logs}
}

// run runs the watches until the test ends.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run returned %v", err)
		}
	})
}

// await waits until something that is under way has come.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

func (r *rig) awaitKept(namespace, name string) {
	r.t.Helper()
	await(r.t, namespace+"/"+name+" is watched", func() bool { return r.Kept(namespace, name) })
}

func (r *rig) get(name string) *classes.Class {
	r.t.Helper()
	class, err := r.Get(context.Background(), "ns", name)
	if err != nil {
		r.t.Fatal(err)
	}
	return class
}

func (r *rig) failure(name string) *provider.Error {
	r.t.Helper()
	class, err := r.Get(context.Background(), "ns", name)
	var e *provider.Error
	if !errors.As(err, &e) || class != nil {
		r.t.Fatalf("got %v, %v, want a *provider.Error", class, err)
	}
	assertErrorType(r.t, err)
	return e
}

// assertErrorType checks that metrics can label the failure as upstream does.
func assertErrorType(t *testing.T, err error) {
	t.Helper()
	var typed interface{ ErrorType() string } // what internal/metrics looks for
	if !errors.As(err, &typed) || typed.ErrorType() != "SecretProviderClassNotFound" {
		t.Errorf("the error type of %.200v is not upstream's", err)
	}
}

// cost returns how many requests f makes.
func (r *rig) cost(f func()) int {
	before := r.count("all")
	f()
	return r.count("all") - before
}

func TestFirstUseIsOneReadThenAWatch(t *testing.T) {
	r := newRig(t)
	r.put("ns", "c", nil)
	if n := r.cost(func() { r.get("c") }); n != 1 {
		t.Errorf("the first look-up took %d requests, want 1", n)
	}
	r.Use("vol", "ns", "c")
	r.run()
	r.awaitKept("ns", "c")
	if all, watches := r.count("all"), r.count("watch"); all != 2 || watches != 1 {
		t.Errorf("a first use took %d requests, %d of them watches; want 2 and 1", all, watches)
	}
	if n := r.cost(func() {
		for range 100 {
			r.get("c")
		}
	}); n != 0 {
		t.Errorf("look-ups of a watched class took %d requests, want 0", n)
	}
	r.put("ns", "c", func(o map[string]any) { o["spec"].(map[string]any)["provider"] = "gcp" })
	await(t, "the change arrives", func() bool { return r.get("c").Provider == "gcp" })
	if got := r.get("c"); got.Generation != 2 || got.UID != "uid-c" || got.Parameters["keyvaultName"] != "v" {
		t.Errorf("got %+v", got)
	}
	r.remove("ns", "c")
	await(t, "the deletion arrives", func() bool { _, err := r.Get(context.Background(), "ns", "c"); return err != nil })
	if n := r.cost(func() { assertNotFound(t, r.failure("c")) }); n != 0 {
		t.Errorf("a look-up of a deleted class took %d requests, want 0", n)
	}
	r.put("ns", "c", nil)
	await(t, "the new class arrives", func() bool { _, err := r.Get(context.Background(), "ns", "c"); return err == nil })
	if r.count("get") != 1 {
		t.Errorf("%d reads, want 1", r.count("get"))
	}
}

func assertNotFound(t *testing.T, e *provider.Error) {
	t.Helper()
	want := `failed to get secretproviderclass ns/c, error: secretproviderclasses.secrets-store.csi.x-k8s.io "c" not found`
	if e.Kind != provider.NotFound || e.Message != want || !strings.HasPrefix(e.Error(), want) || !strings.Contains(e.Remedy, "namespace ns") {
		t.Errorf("got %v %q (%s), want NotFound %q", e.Kind, e.Message, e.Remedy, want)
	}
}

func TestAHundredAtOnceAreOneRead(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(s *server, _ *classes.Config) {
		s.refuse = func(http.ResponseWriter, *http.Request, string) bool { close(arrived); <-release; return false }
	})
	r.put("ns", "c", nil)
	first, cancel := context.WithCancel(context.Background())
	left := make(chan error)
	go func() { _, err := r.Get(first, "ns", "c"); left <- err }()
	<-arrived
	cancel() // who started the read does not wait for it, the others do
	if err := <-left; provider.KindOf(err) != provider.Unavailable || !strings.HasPrefix(err.Error(), "failed to get secretproviderclass ns/c, error: ") {
		t.Errorf("who left was told %v", err)
	}
	var all sync.WaitGroup
	var started sync.WaitGroup
	for range 100 {
		started.Add(1)
		all.Go(func() {
			started.Done()
			if _, err := r.Get(context.Background(), "ns", "c"); err != nil {
				t.Error(err)
			}
		})
	}
	started.Wait()
	await(t, "all of them wait", func() bool { return waiting() >= 100 })
	close(release)
	all.Wait()
	if n := r.count("all"); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// waiting counts the goroutines that wait for a read.
func waiting() int {
	buf := make([]byte, 4<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "classes.(*Classes).wait(")
}

func TestFailures(t *testing.T) {
	answer := func(code int, reason, message string) func(http.ResponseWriter, *http.Request, string) bool {
		return func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			fail(w, code, reason, message)
			return true
		}
	}
	for _, tc := range []struct {
		name   string
		refuse func(http.ResponseWriter, *http.Request, string) bool
		kind   provider.Kind
		text   string
		remedy string
	}{
		{"not found", nil, provider.NotFound, `secretproviderclasses.secrets-store.csi.x-k8s.io "c" not found`, "create the SecretProviderClass c"},
		{"forbidden", answer(403, "Forbidden", `secretproviderclasses "c" is forbidden: User "u" cannot get`), provider.Denied,
			`secretproviderclasses "c" is forbidden: User "u" cannot get`, "secretproviderclasses-role"},
		{"unauthorized", answer(401, "Unauthorized", "Unauthorized"), provider.Denied, "Unauthorized", "secretproviderclasses-role"},
		{"throttled", answer(429, "TooManyRequests", "slow down"), provider.Throttled, "slow down", ""},
		{"server error", answer(500, "InternalError", "etcd has no leader"), provider.Unavailable, "etcd has no leader", "tries again"},
		{"away", answer(503, "ServiceUnavailable", "shutting down"), provider.Unavailable, "shutting down", "tries again"},
		{"connection cut", func(http.ResponseWriter, *http.Request, string) bool { panic(http.ErrAbortHandler) }, provider.Unavailable, "", "tries again"},
		{"not JSON", func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			w.Header().Set("Content-Type", "application/json")
			w.Write([]byte("<html>"))
			return true
		}, provider.Internal, "", ""},
		{"another object", func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"kind":"SecretProviderClass","apiVersion":"secrets-store.csi.x-k8s.io/v1","metadata":{"namespace":"ns","name":"other"}}`)
			return true
		}, provider.Internal, "another object", ""},
		{"a text that forges a log line", answer(403, "Forbidden", "a\nlevel=ERROR "+strings.Repeat("x", 5000)), provider.Denied, "a level=ERROR", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, func(s *server, cfg *classes.Config) { s.refuse, cfg.ReadTimeout = tc.refuse, 500*time.Millisecond })
			e := r.failure("c")
			if e.Kind != tc.kind || !strings.Contains(e.Message, tc.text) || !strings.Contains(e.Remedy, tc.remedy) {
				t.Errorf("got %v %q (%s)", e.Kind, e.Message, e.Remedy)
			}
			if !strings.HasPrefix(e.Error(), "failed to get secretproviderclass ns/c, error: ") || len(e.Error()) > 1500 || strings.Contains(e.Error(), "\n") {
				t.Errorf("text is %q", e.Error())
			}
		})
	}
}

func TestThrottledSaysForHowLong(t *testing.T) {
	r := newRig(t, func(s *server, _ *classes.Config) {
		s.refuse = func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			body := `{"kind":"Status","apiVersion":"v1","status":"Failure","code":429,"reason":"TooManyRequests","message":"slow","details":{"retryAfterSeconds":7}}`
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(429)
			w.Write([]byte(body))
			return true
		}
	})
	if e := r.failure("c"); e.Kind != provider.Throttled || e.RetryAfter != 7*time.Second {
		t.Errorf("got %v after %v", e.Kind, e.RetryAfter)
	}
}

func TestAPIServerNotThere(t *testing.T) {
	r := newRig(t)
	r.Close()
	if e := r.failure("c"); e.Kind != provider.Unavailable || !strings.Contains(e.Message, "connection refused") {
		t.Errorf("got %v", e)
	}
}

func TestNamesThatNoClassCanHave(t *testing.T) {
	r := newRig(t)
	r.run()
	for _, tc := range []struct{ namespace, name string }{
		{"ns", ""}, {"", "c"}, {"ns", ".."}, {"ns", "a/b"}, {"ns", "a/../../../secrets"}, {"../x", "c"}, {"ns", "C"}, {"ns", "c?watch=1"}, {"ns", "c%2f"},
		{"ns", strings.Repeat("a", 300)}, {"ns", "a\nb"}, {"a.b", "c"}, {"ns", strings.Repeat("x/", 1<<20)},
	} {
		_, err := r.Get(context.Background(), tc.namespace, tc.name)
		if provider.KindOf(err) != provider.Invalid || !strings.HasPrefix(err.Error(), "failed to get secretproviderclass ") || len(err.Error()) > 1500 ||
			strings.Contains(err.Error(), "\n") {
			t.Errorf("%.20q %.20q gave %.200v", tc.namespace, tc.name, err)
		}
		assertErrorType(t, err)
		r.Use("v", tc.namespace, tc.name)
	}
	if v, c, _ := r.Sizes(); v != 0 || c != 0 || r.count("all") != 0 {
		t.Errorf("%d volumes and %d classes are kept, %d requests were made; want none", v, c, r.count("all"))
	}
}

func TestUseAndRelease(t *testing.T) {
	r := newRig(t)
	r.put("ns", "a", nil)
	r.put("ns", "b", nil)
	r.run()
	for range 3 {
		r.Use("1", "ns", "a")
		r.Use("2", "ns", "a")
	}
	r.awaitKept("ns", "a")
	r.Use("3", "ns", "b")
	r.awaitKept("ns", "b")
	if got := r.watches(); !slices.Equal(got, []string{"ns/a", "ns/b"}) {
		t.Errorf("watches are %v", got)
	}
	r.Release("1")
	r.Release("1")
	r.Release("unknown")
	if !r.Kept("ns", "a") {
		t.Error("the class of a volume that is left is not watched")
	}
	r.Use("2", "ns", "b") // a volume id that comes again with another class
	await(t, "the watch ends", func() bool { return slices.Equal(r.watches(), []string{"ns/b"}) })
	r.Release("2")
	r.Release("3")
	await(t, "all watches end", func() bool { return len(r.watches()) == 0 })
	if v, c, w := r.Sizes(); v+c+w != 0 {
		t.Errorf("%d volumes, %d classes, %d watches are left", v, c, w)
	}
	if n := r.cost(func() { r.get("a") }); n != 1 {
		t.Errorf("a class that is no longer used took %d requests, want 1", n)
	}
}

func TestVolumesAreBounded(t *testing.T) {
	r := newRig(t)
	for i := range classes.MaxVolumes + 10 {
		r.Use(fmt.Sprint(i), "ns", "c")
	}
	if v, c, _ := r.Sizes(); v != classes.MaxVolumes || c != 1 || r.logs.count("too many volumes") != 1 {
		t.Errorf("%d volumes, %d classes, %d lines", v, c, r.logs.count("too many volumes"))
	}
}
