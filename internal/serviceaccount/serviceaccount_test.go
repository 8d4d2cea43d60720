package serviceaccount_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"keymount/internal/provider"
	"keymount/internal/serviceaccount"
)

// A rig is an API server with one service account, ns/sa, and a Reader with a clock that stands still.
type rig struct {
	*serviceaccount.Reader
	requests, seconds atomic.Int64
	accept            atomic.Value
	answer            func(w http.ResponseWriter) // nil: the service account
	annotations       map[string]string
	logs              bytes.Buffer
}

func newRig(t *testing.T) *rig {
	r := &rig{annotations: map[string]string{"a/client": "id", "a/tenant": "t", "other": "x"}}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	reader, err := serviceaccount.New(serviceaccount.Config{API: &rest.Config{Host: server.URL, QPS: -1},
		Log: slog.New(slog.NewTextHandler(&r.logs, nil)), Now: func() time.Time { return time.Unix(1_800_000_000+r.seconds.Load(), 0) }})
	if err != nil {
		t.Fatal(err)
	}
	r.Reader = reader
	return r
}

func (r *rig) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.requests.Add(1)
	r.accept.Store(req.Header.Get("Accept"))
	if r.answer != nil {
		r.answer(w)
		return
	}
	if req.Method != http.MethodGet || req.URL.Path != "/api/v1/namespaces/ns/serviceaccounts/sa" {
		fail(404, "NotFound", "not found")(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
		"metadata": map[string]any{"name": "sa", "namespace": "ns", "annotations": r.annotations}})
}

func fail(code int, reason, message string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
			"reason": reason, "message": message})
	}
}

var wanted = []string{"a/client", "a/tenant", "absent"}

func TestAnnotationsAreReadOnceAMinute(t *testing.T) {
	want := map[string]string{"a/client": "id", "a/tenant": "t"}
	for second, requests := range map[int64]int64{0: 1, 59: 1, 60: 2} {
		r := newRig(t)
		for range 2 {
			if got, err := r.Annotations(t.Context(), "ns", "sa", wanted); err != nil || !maps.Equal(got, want) {
				t.Errorf("got %v, %v, want %v", got, err, want)
			}
			r.seconds.Store(second)
		}
		if n := r.requests.Load(); n != requests {
			t.Errorf("two look-ups %d s apart took %d requests, want %d", second, n, requests)
		}
		if accept := r.accept.Load().(string); !strings.Contains(accept, "as=PartialObjectMetadata") {
			t.Errorf("more than metadata was asked for: %s", accept)
		}
	}
}

func TestNothingWantedIsNoRequest(t *testing.T) {
	r := newRig(t)
	if got, err := r.Annotations(t.Context(), "ns", "sa", nil); got != nil || err != nil || r.requests.Load() != 0 {
		t.Errorf("got %v, %v with %d requests", got, err, r.requests.Load())
	}
}

func TestAHundredAtOnceAreOneRequest(t *testing.T) {
	r := newRig(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	r.answer = func(w http.ResponseWriter) {
		close(arrived)
		<-release
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"sa","annotations":{"a/client":"id"}}}`)
	}
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() { _, err := r.Annotations(ctx, "ns", "sa", wanted); left <- err }()
	<-arrived
	cancel()
	if err := <-left; provider.KindOf(err) != provider.Unavailable {
		t.Errorf("who left was told %v", err)
	}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if got, err := r.Annotations(t.Context(), "ns", "sa", wanted); err != nil || got["a/client"] != "id" {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	buf := make([]byte, 4<<20)
	for strings.Count(string(buf[:runtime.Stack(buf, true)]), "(*Reader).Annotations(") < 100 {
		runtime.Gosched()
	}
	close(release)
	all.Wait()
	if n := r.requests.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestFailures(t *testing.T) {
	for _, tc := range []struct {
		name   string
		edit   func(*rig)
		kind   provider.Kind
		text   string
		remedy string
	}{
		{"forbidden", func(r *rig) { r.answer = fail(403, "Forbidden", "User cannot get") }, provider.Denied, "User cannot get", "get on serviceaccounts"},
		{"not found", func(r *rig) { r.answer = fail(404, "NotFound", "no such account") }, provider.NotFound, "no such account", "create the service account"},
		{"throttled", func(r *rig) { r.answer = fail(429, "TooManyRequests", "slow") }, provider.Throttled, "slow", ""},
		{"away", func(r *rig) { r.answer = fail(503, "ServiceUnavailable", "away") }, provider.Unavailable, "away", ""},
		{"bad", func(r *rig) { r.answer = fail(400, "BadRequest", "what\nlevel=ERROR") }, provider.Internal, "what level=ERROR", ""},
		{"too large", func(r *rig) { r.annotations["a/client"] = strings.Repeat("x", 17<<10) }, provider.Invalid, "larger than", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			tc.edit(r)
			for range 3 {
				_, err := r.Annotations(t.Context(), "ns", "sa", wanted)
				if provider.KindOf(err) != tc.kind || !strings.HasPrefix(err.Error(), "reading the annotations of service account ns/sa: ") ||
					!strings.Contains(err.Error(), tc.text) || !strings.Contains(err.Error(), tc.remedy) {
					t.Errorf("got %v %v", provider.KindOf(err), err)
				}
			}
			if n := r.requests.Load(); n != 1 {
				t.Errorf("three look-ups took %d requests, want 1", n)
			}
			r.answer, r.annotations = nil, map[string]string{"a/client": "id"}
			r.seconds.Add(10)
			if _, err := r.Annotations(t.Context(), "ns", "sa", wanted); err != nil {
				t.Errorf("after 10 s it is not tried again: %v", err)
			}
			if n := strings.Count(r.logs.String(), "\n"); n != map[bool]int{true: 2}[tc.kind == provider.Denied] {
				t.Errorf("logged %q", r.logs.String())
			}
		})
	}
}

// An API server that is away takes no annotations from volumes that are refreshed meanwhile; one that answers does.
func TestAnOutage(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer func(http.ResponseWriter)
		away   int64 // seconds
		kept   bool
	}{
		{"away", fail(503, "ServiceUnavailable", "away"), 3600, true},
		{"throttled", fail(429, "TooManyRequests", "slow"), 3600, true},
		{"away for too long", fail(503, "ServiceUnavailable", "away"), 3601, false},
		{"gone", fail(404, "NotFound", "none"), 60, false},
		{"the right was taken away", fail(403, "Forbidden", "no"), 60, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			if _, err := r.Annotations(t.Context(), "ns", "sa", wanted); err != nil {
				t.Fatal(err)
			}
			r.answer = tc.answer
			r.seconds.Add(tc.away)
			got, err := r.Annotations(t.Context(), "ns", "sa", wanted)
			if kept := err == nil && got["a/client"] == "id"; kept != tc.kept {
				t.Errorf("got %v, %v", got, err)
			}
			if tc.kept {
				r.seconds.Add(10)
				requests := r.requests.Load()
				r.answer, r.annotations = nil, map[string]string{"a/client": "new"}
				if got, err := r.Annotations(t.Context(), "ns", "sa", wanted); err != nil || got["a/client"] != "new" || r.requests.Load() != requests+1 {
					t.Errorf("then got %v, %v", got, err)
				}
			}
		})
	}
}

func TestNamesThatNoServiceAccountCanHave(t *testing.T) {
	r := newRig(t)
	for _, names := range [][2]string{{"ns", ""}, {"", "sa"}, {"ns", "../secrets/x"}, {"a/b", "sa"}, {"ns", "SA"}, {"ns", strings.Repeat("a", 1000)}} {
		if _, err := r.Annotations(t.Context(), names[0], names[1], wanted); provider.KindOf(err) != provider.Invalid || len(err.Error()) > 500 {
			t.Errorf("%.40q gave %v", names, err)
		}
	}
	if n := r.requests.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	r := newRig(t)
	r.answer = fail(404, "NotFound", "none")
	for i := range 1100 {
		r.Annotations(t.Context(), "ns", fmt.Sprintf("sa%d", i), wanted)
	}
	if n := r.Kept(); n != 1024 {
		t.Errorf("%d are kept", n)
	}
	r.seconds.Add(10)
	r.Annotations(t.Context(), "ns", "one-more", wanted)
	if n := r.Kept(); n != 1 {
		t.Errorf("%d are kept when the others are too old", n)
	}
}
