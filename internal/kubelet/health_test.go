//go:build !windows

package kubelet_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"keymount/internal/kubelet"
)

var discard = slog.New(slog.DiscardHandler)

func get(h http.Handler, method, path string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String()
}

// The answer of /healthz is that of the driver behind its socket.
func TestHealthz(t *testing.T) {
	for _, tc := range []struct {
		name  string
		probe func(context.Context) (*csi.ProbeResponse, error) // nil: nobody serves
		code  int
		want  string
	}{
		{"says nothing", func(context.Context) (*csi.ProbeResponse, error) { return &csi.ProbeResponse{}, nil }, 200, "ok"},
		{"ready", func(context.Context) (*csi.ProbeResponse, error) {
			return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
		}, 200, "ok"},
		{"not ready", func(context.Context) (*csi.ProbeResponse, error) {
			return &csi.ProbeResponse{Ready: wrapperspb.Bool(false)}, nil
		}, 500, "says that it is not ready"},
		{"fails", func(context.Context) (*csi.ProbeResponse, error) {
			return nil, status.Error(codes.FailedPrecondition, "no lock")
		}, 500, "FailedPrecondition: no lock"},
		{"nobody serves", nil, 500, "Unavailable: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := endpoint(t, "unix://"+filepath.Join(socketDir(t), "c.sock"))
			if tc.probe != nil {
				start(t, t.Context(), e, driver(tc.probe), time.Second)
			}
			h := kubelet.NewHealth(kubelet.NewProber(e).Probe, kubelet.NewReadiness(), discard)
			code, body := get(h, "GET", "/healthz")
			if code != tc.code || !strings.Contains(body, tc.want) || code != 200 && !strings.Contains(body, e.String()) {
				t.Errorf("%d %s, want %d %s", code, body, tc.code, tc.want)
			}
		})
	}
}

// A driver that only an old connection reaches is dead for kubelet.
func TestProbeConnectsAnew(t *testing.T) {
	e := endpoint(t, "unix://"+filepath.Join(socketDir(t), "c.sock"))
	l, _ := start(t, t.Context(), e, driver(func(context.Context) (*csi.ProbeResponse, error) { return &csi.ProbeResponse{}, nil }), time.Second)
	p := kubelet.NewProber(e)
	if err := p.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := p.Probe(t.Context()); err == nil {
		t.Error("the socket is gone, and the probe finds the driver well")
	}
}

// Many callers cost one probe, and a driver that hangs is told as such in time.
func TestHealthzIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var probes atomic.Int32
		h := kubelet.NewHealth(func(ctx context.Context) error {
			probes.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}, kubelet.NewReadiness(), discard)
		codes := make(chan int, 10)
		for range cap(codes) {
			go func() {
				code, _ := get(h, "GET", "/healthz")
				codes <- code
			}()
		}
		// A caller that gives up neither waits nor takes the others' answer with it.
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/healthz", nil).WithContext(ctx))
			close(gone)
		}()
		synctest.Wait()
		cancel()
		<-gone
		if n := probes.Load(); n != 1 {
			t.Errorf("%d probes at once", n)
		}
		for range cap(codes) {
			if code := <-codes; code != 500 {
				t.Errorf("answer %d", code)
			}
		}
		if code, _ := get(h, "GET", "/healthz"); code != 500 || probes.Load() != 2 {
			t.Errorf("answer %d after %d probes: the next caller wants a probe of its own", code, probes.Load())
		}
	})
}

func TestReadyz(t *testing.T) {
	r := kubelet.NewReadiness(kubelet.LockHeld, kubelet.Serving)
	h := kubelet.NewHealth(func(context.Context) error { return errors.New("not asked") }, r, discard)
	for _, step := range []struct {
		do   func()
		code int
		want string
	}{
		{func() {}, 503, "[-] lock: starting\n[-] csi-socket: starting\n"},
		{func() { r.Met(kubelet.LockHeld, "held") }, 503, "[+] lock: held\n[-] csi-socket: starting\n"},
		{func() { r.Met(kubelet.Serving, "answers") }, 200, "[+] lock: held\n[+] csi-socket: answers\n"},
		{func() { r.Unmet(kubelet.Registered, "not asked for") }, 200, "[+] lock: held\n[+] csi-socket: answers\n"},
		{func() { r.Unmet(kubelet.Serving, "stopping") }, 503, "[+] lock: held\n[-] csi-socket: stopping\n"},
	} {
		step.do()
		if code, body := get(h, "GET", "/readyz"); code != step.code || body != step.want {
			t.Errorf("%d %q, want %d %q", code, body, step.code, step.want)
		}
	}
	for _, tc := range []struct {
		method, path string
		code         int
	}{{"POST", "/readyz", 405}, {"GET", "/", 404}, {"GET", "/metrics", 404}} {
		if code, _ := get(h, tc.method, tc.path); code != tc.code {
			t.Errorf("%s %s: %d, want %d", tc.method, tc.path, code, tc.code)
		}
	}
}

func TestHealthServes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked, release := make(chan struct{}), make(chan struct{})
	h := kubelet.NewHealth(func(context.Context) error {
		close(asked)
		<-release
		return nil
	}, kubelet.NewReadiness(), discard)
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx, l) }()
	type answer struct {
		body string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		resp, err := http.Get("http://" + l.Addr().String() + "/healthz")
		if err != nil {
			answers <- answer{err: err}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		answers <- answer{string(body), err}
	}()
	<-asked
	cancel() // a probe in flight gets its answer
	close(release)
	if a := <-answers; a.err != nil || a.body != "ok" {
		t.Errorf("%q, %v", a.body, a.err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestHealthServerFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	h := kubelet.NewHealth(func(context.Context) error { return nil }, kubelet.NewReadiness(), discard)
	if err := h.Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "health: serving on 127.0.0.1:") {
		t.Errorf("error %v", err)
	}
}
