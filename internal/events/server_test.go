package events_test

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
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"keymount/internal/events"
	"keymount/internal/provider"
	"keymount/internal/publish"
)

// A bench is a recorder and an API server that keeps Events. It is reached by pipes, so that the clock can stand still.
type bench struct {
	*events.Recorder
	t     *testing.T
	conns chan net.Conn
	stop  func() // ends Run and waits for it

	mu       sync.Mutex
	log      bytes.Buffer
	status   int  // what requests are answered with; 0 for what is right, -1 to hang
	cut      bool // the next write takes effect, its answer is lost
	requests []string
	events   map[string]map[string]any
	order    []string
}

// in runs a test in a world where time passes only when everybody waits.
func in(t *testing.T, test func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, conns: make(chan net.Conn), events: map[string]map[string]any{}}
		web := &http.Server{Handler: b, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		served := make(chan struct{})
		go func() { defer close(served); _ = web.Serve(listener{b.conns, make(chan struct{})}) }()
		r, err := events.New(events.Config{API: b.config(), NodeID: "node-1",
			Log: slog.New(slog.NewTextHandler(b, nil))})
		if err != nil {
			t.Fatal(err)
		}
		b.Recorder = r
		b.run()
		test(t, b)
		b.stop()
		_ = web.Close()
		<-served
	})
}

func (b *bench) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
}

func (b *bench) config() *rest.Config {
	return &rest.Config{Host: "http://api.test", QPS: -1, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			select {
			case b.conns <- theirs:
				return ours, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}}
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

// Write makes the bench the place of its recorder's log.
func (b *bench) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

func (b *bench) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const collection = "/api/v1/namespaces/shop/events"
	name, ok := strings.CutPrefix(r.URL.Path, collection)
	if !ok {
		b.t.Errorf("asked for %s", r.URL.Path)
	}
	name = strings.TrimPrefix(name, "/")
	body, _ := io.ReadAll(r.Body)
	var sent map[string]any
	if err := json.Unmarshal(body, &sent); err != nil {
		b.t.Error(err)
	}
	b.mu.Lock()
	status, cut := b.status, b.cut
	b.requests = append(b.requests, r.Method)
	b.cut = false
	b.mu.Unlock()
	switch status {
	case -1:
		<-r.Context().Done()
		return
	case 0:
		status = b.act(r.Method, name, sent)
	}
	switch {
	case cut:
		panic(http.ErrAbortHandler)
	case status >= 300:
		reason := map[int]string{403: "Forbidden", 404: "NotFound", 409: "AlreadyExists"}[status]
		body = fmt.Appendf(nil, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no","reason":%q,"code":%d}`, reason, status)
	case r.Method == http.MethodPatch:
		body = []byte(`{"kind":"Event","apiVersion":"v1","metadata":{}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func (b *bench) act(method, name string, sent map[string]any) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch method {
	case http.MethodPost:
		name = sent["metadata"].(map[string]any)["name"].(string)
		if b.events[name] != nil {
			return 409
		}
		b.events[name] = sent
		b.order = append(b.order, name)
		return 201
	case http.MethodPatch:
		if b.events[name] == nil {
			return 404
		}
		maps.Copy(b.events[name], sent)
		return 200
	}
	b.t.Errorf("%s is not expected", method)
	return 405
}

func (b *bench) answer(status int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status = status
}

func (b *bench) logged() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

// asked returns the methods of the requests since the last call, when nothing more is under way.
func (b *bench) asked() string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	out := strings.Join(b.requests, " ")
	b.requests = nil
	return out
}

func (b *bench) wantAsked(want string) {
	b.t.Helper()
	if got := b.asked(); got != want {
		b.t.Errorf("asked %q, want %q", got, want)
	}
}

// last returns the newest Event.
func (b *bench) last() *corev1.Event {
	b.t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	out := &corev1.Event{}
	if len(b.order) == 0 {
		b.t.Fatal("no Event")
	}
	text, _ := json.Marshal(b.events[b.order[len(b.order)-1]])
	if err := json.Unmarshal(text, out); err != nil {
		b.t.Fatal(err)
	}
	return out
}

// tell is a call that ended.
func (b *bench) tell(change ...func(*publish.Outcome)) {
	o := publish.Outcome{Operation: publish.Publishing, Volume: &publish.Volume{ID: "csi-1", Class: publish.Class{Namespace: "shop", Name: "db"},
		Request: provider.Request{Pod: provider.Pod{Namespace: "shop", Name: "web", UID: "uid-web"}}}}
	for _, c := range change {
		c(&o)
	}
	b.Observe(b.t.Context(), o)
}

func held(o *publish.Outcome) { o.Held = true }

func fails(kind provider.Kind, objects ...string) func(*publish.Outcome) {
	return func(o *publish.Outcome) {
		var errs provider.Errors
		for _, id := range objects {
			errs = append(errs, &provider.Error{Kind: kind, Object: id, Message: "reading " + id + " in vault kv: 100%d of it", Remedy: "grant it"})
		}
		o.Err = fmt.Errorf("failed to mount: %w", errs)
	}
}

func fetched(o *publish.Outcome) { o.Result.Fetched, o.Result.First = true, !o.Held }
