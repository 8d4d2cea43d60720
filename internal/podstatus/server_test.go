package podstatus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"

	"keymount/internal/podstatus"
	"keymount/internal/provider"
	"keymount/internal/publish"
)

const collection = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/shop/secretproviderclasspodstatuses"

// A server keeps objects as an API server does. It is reached by pipes, so that a test's clock can stand still.
type server struct {
	t        *testing.T
	conns    chan net.Conn
	mu       sync.Mutex
	objects  map[string]map[string]any
	version  int
	requests []string // "PATCH name"
	writes   []string // bodies
	// What goes wrong. before is asked ahead of each request, and an answer of its own is the answer; after is asked when
	// the request took effect, and true cuts the connection.
	before func(method, name string) (status int)
	after  func(method, name string) (cut bool)
	prunes bool // the definition has no conditions
	ending bool // the namespace is being removed
	admits func(object map[string]any)
}

func newServer(t *testing.T) *server {
	s := &server{t: t, conns: make(chan net.Conn), objects: map[string]map[string]any{}}
	web := &http.Server{Handler: s, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	l := listener{s.conns, make(chan struct{})}
	done := make(chan struct{})
	go func() { defer close(done); _ = web.Serve(l) }()
	t.Cleanup(func() { _ = web.Close(); <-done })
	return s
}

type listener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l listener) Close() error   { close(l.closed); return nil }
func (l listener) Addr() net.Addr { return &net.UnixAddr{} }

func (s *server) config() *rest.Config {
	return &rest.Config{Host: "http://api.test", QPS: -1, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			select {
			case s.conns <- theirs:
				return ours, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, collection), "/")
	if path != "" {
		s.t.Errorf("asked for %s", r.URL.Path)
	}
	body, _ := io.ReadAll(r.Body)
	var sent map[string]any
	if len(body) > 0 {
		if err := json.Unmarshal(body, &sent); err != nil {
			s.t.Errorf("body: %v", err)
		}
	}
	name := rest
	if r.Method == http.MethodPost {
		name = sent["metadata"].(map[string]any)["name"].(string)
	}
	if r.Method != http.MethodGet && r.URL.Query().Get("fieldValidation") != "Ignore" {
		s.t.Error("a write would have the API server warn about fields it does not know")
	}
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+name)
	before, after, ending := s.before, s.after, s.ending
	s.mu.Unlock()
	if ending && r.Method == http.MethodPost {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"details":{"causes":[{"reason":"NamespaceTerminating"}]}}`)
		return
	}
	if before != nil {
		if status := before(r.Method, name); status == -1 {
			<-r.Context().Done() // hangs
			return
		} else if status != 0 {
			s.fail(w, status, map[int]string{403: "Forbidden", 409: "Conflict"}[status])
			return
		}
	}
	code, answer := s.act(r.Method, name, sent, body)
	if after != nil && after(r.Method, name) {
		panic(http.ErrAbortHandler)
	}
	if answer == nil {
		s.fail(w, code, map[int]string{404: "NotFound", 409: "AlreadyExists", 410: "Conflict"}[code])
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(answer)
}

func (s *server) fail(w http.ResponseWriter, code int, reason string) {
	if reason == "Conflict" {
		code = 409
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"the server says %s","reason":%q,"code":%d}`, reason, reason, code)
}

func (s *server) act(method, name string, sent map[string]any, body []byte) (int, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	object := s.objects[name]
	switch method {
	case http.MethodPost:
		if object != nil {
			return 409, nil
		}
		s.writes = append(s.writes, string(body))
		return 201, s.store(name, sent)
	case http.MethodPatch:
		switch {
		case object == nil:
			return 404, nil
		case sent["metadata"].(map[string]any)["resourceVersion"] != object["metadata"].(map[string]any)["resourceVersion"]:
			return 410, nil
		}
		s.writes = append(s.writes, string(body))
		return 200, s.store(name, merge(object, sent).(map[string]any))
	case http.MethodGet:
		if object == nil {
			return 404, nil
		}
		out, _ := json.Marshal(object)
		return 200, out
	}
	s.t.Errorf("%s is not expected", method)
	return 405, nil
}

// merge is RFC 7386.
func merge(into, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	m, _ := into.(map[string]any)
	m = maps.Clone(m)
	if m == nil {
		m = map[string]any{}
	}
	for k, v := range p {
		if v == nil {
			delete(m, k)
		} else {
			m[k] = merge(m[k], v)
		}
	}
	return m
}

func (s *server) store(name string, object map[string]any) []byte {
	s.version++
	object["metadata"].(map[string]any)["resourceVersion"] = strconv.Itoa(s.version)
	if status, ok := object["status"].(map[string]any); ok && s.prunes {
		delete(status, "conditions")
	}
	if s.admits != nil {
		s.admits(object)
	}
	s.objects[name] = object
	out, _ := json.Marshal(object)
	return out
}

// put makes an object as somebody else does.
func (s *server) put(name, object string) {
	s.t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(object), &o); err != nil {
		s.t.Fatal(err)
	}
	o["apiVersion"], o["kind"] = "secrets-store.csi.x-k8s.io/v1", "SecretProviderClassPodStatus"
	if o["metadata"] == nil {
		o["metadata"] = map[string]any{}
	}
	o["metadata"].(map[string]any)["name"] = name
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(name, o)
}

func (s *server) breaks(before func(method, name string) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

// asked returns the requests since the last call.
func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.requests
	s.requests = nil
	return out
}

func (s *server) wantAsked(want ...string) {
	s.t.Helper()
	if got := s.asked(); !slices.Equal(got, want) {
		s.t.Errorf("asked %q, want %q", got, want)
	}
}

// object returns a part of an object as JSON, or all of it.
func (s *server) object(name string, path ...string) string {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var at any = s.objects[name]
	for _, key := range path {
		m, _ := at.(map[string]any)
		at = m[key]
	}
	out, _ := json.Marshal(at)
	return string(out)
}

func (s *server) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.objects))
}

// A bench is a recorder, the server it writes to, and what it logs.
type bench struct {
	*podstatus.Recorder
	*server
	logs *logs
}

func newBench(t *testing.T) *bench {
	b := &bench{server: newServer(t)}
	b.restart()
	return b
}

// restart is a new process on the same cluster.
func (b *bench) restart() {
	b.logs = &logs{}
	r, err := podstatus.New(podstatus.Config{API: b.config(), NodeID: "node-1",
		Log: slog.New(slog.NewTextHandler(b.logs, &slog.HandlerOptions{Level: slog.LevelInfo}))})
	if err != nil {
		b.t.Fatal(err)
	}
	b.Recorder = r
}

// run repeats failed writes until the test ends.
func (b *bench) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
}

func volumeOf(pod, class, volume string) *publish.Volume {
	return &publish.Volume{ID: "csi-" + pod + "-" + volume, Target: "/var/lib/kubelet/pods/uid-" + pod + "/volumes/kubernetes.io~csi/" + volume + "/mount",
		Class:   publish.Class{Namespace: "shop", Name: class},
		Request: provider.Request{Pod: provider.Pod{Namespace: "shop", Name: pod, UID: "uid-" + pod}}}
}

// holds is a successful refresh; versions are "id=version".
func holds(versions ...string) *publish.Result {
	r := &publish.Result{Fetched: true}
	for _, v := range versions {
		id, version, _ := strings.Cut(v, "=")
		r.Versions = append(r.Versions, provider.ObjectVersion{ID: id, Version: version})
	}
	return r
}

// first is a first mount.
func first(versions ...string) *publish.Result {
	r := holds(versions...)
	r.First = true
	return r
}

func (b *bench) record(v *publish.Volume, r *publish.Result) {
	b.t.Helper()
	if err := b.RecordStatus(b.t.Context(), v, r); err != nil {
		b.t.Error(err)
	}
}

func (b *bench) recordFailure(v *publish.Volume, err error) {
	b.t.Helper()
	if err := b.RecordFailure(b.t.Context(), v, err); err != nil {
		b.t.Error(err)
	}
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

// logs may be written and read at the same time.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
