package providerd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
	"keymount/internal/providerd"
	"keymount/internal/socket"
)

type fetch func(context.Context, *provider.Request) (*provider.Bundle, error)

func (f fetch) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	return f(ctx, req)
}
func (fetch) Measure() provider.Measures { return provider.Measures{Reads: 7, SharedReads: 6} }

func empty(context.Context, *provider.Request) (*provider.Bundle, error) {
	return &provider.Bundle{}, nil
}

// A running is a Run under way: its addresses are those of the log.
type running struct {
	socket                    string
	health, metrics, profiles string
	client                    *plugin.Client
	cancel                    context.CancelFunc
	ended                     chan error
}

// base is a Config that works, with all parts but profiles on ports of the kernel's choice.
func base(t *testing.T, p provider.Provider) providerd.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "km") // t.TempDir would be too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	endpoint, err := socket.ParseEndpoint("unix://" + filepath.Join(dir, "p.sock"))
	if err != nil {
		t.Fatal(err)
	}
	return providerd.Config{
		Name: "azure", Provider: p, Info: plugin.Info{RuntimeName: "test", RuntimeVersion: "v1"}, Endpoint: endpoint,
		Health: "127.0.0.1:0", Metrics: "127.0.0.1:0", HealthPath: "/healthz", HealthWithin: time.Minute,
		Instruments: providerd.NewInstruments("azure", "the-service", "v1"), Log: slog.New(slog.DiscardHandler),
	}
}

// firstLine is closed once it has been written to, which is when Run serves.
type firstLine struct {
	mu      sync.Mutex
	b       bytes.Buffer
	written chan struct{}
	once    sync.Once
}

func (l *firstLine) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.once.Do(func() { close(l.written) })
	return l.b.Write(p)
}

func start(t *testing.T, cfg providerd.Config) *running {
	t.Helper()
	line := &firstLine{written: make(chan struct{})}
	cfg.Log = slog.New(slog.NewJSONHandler(line, nil))
	ctx, cancel := context.WithCancel(t.Context())
	path := strings.TrimPrefix(cfg.Endpoint.String(), "unix://")
	r := &running{socket: path, cancel: cancel, ended: make(chan error, 1), client: plugin.NewClient(plugin.ClientConfig{Socket: path})}
	go func() { r.ended <- providerd.Run(ctx, cfg) }()
	t.Cleanup(func() { r.client.Close(); cancel() })
	select {
	case <-line.written:
	case err := <-r.ended:
		t.Fatal(err)
	}
	line.mu.Lock()
	defer line.mu.Unlock()
	var said struct{ Msg, Health, Metrics, Profiles string }
	if err := json.NewDecoder(&line.b).Decode(&said); err != nil || said.Msg != "serving" {
		t.Fatalf("the first line is %+v, %v", said, err)
	}
	r.health, r.metrics, r.profiles = "http://"+said.Health, "http://"+said.Metrics, "http://"+said.Profiles
	return r
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
}

func do(t *testing.T, method, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func wants(t *testing.T, url string, status int, body string) {
	t.Helper()
	if got, text := do(t, http.MethodGet, url); got != status || !strings.Contains(text, body) {
		t.Errorf("%s: %d %q, want %d with %q", url, got, text, status, body)
	}
}

func TestHealth(t *testing.T) {
	cfg := base(t, fetch(empty))
	cfg.HealthPath = "/alive"
	r := start(t, cfg)
	wants(t, r.health+"/alive", 200, "ok")
	wants(t, r.health+"/readyz", 200, "ok")
	wants(t, r.health+"/healthz", 404, "")
	wants(t, r.health+"/alive/", 404, "")
	wants(t, r.health+"/metrics", 404, "")
	if status, body := do(t, http.MethodHead, r.health+"/alive"); status != 200 || body != "" {
		t.Errorf("HEAD: %d %q", status, body)
	}
	if status, _ := do(t, http.MethodPost, r.health+"/alive"); status != 405 {
		t.Errorf("POST: %d", status)
	}
	// The socket's name is gone: drivers find nobody, though old connections work.
	if err := os.Rename(r.socket, r.socket+".away"); err != nil {
		t.Fatal(err)
	}
	wants(t, r.health+"/alive", 503, "no such file")
	wants(t, r.health+"/readyz", 503, "no such file")
	if err := os.Rename(r.socket+".away", r.socket); err != nil {
		t.Fatal(err)
	}
	wants(t, r.health+"/alive", 200, "ok")
	r.stop(t)
}

// A socket that is taken, and then silent, is not healthy, and says so in time.
func TestHealthOfASilentSocket(t *testing.T) {
	cfg := base(t, fetch(empty))
	cfg.HealthWithin = 20 * time.Millisecond
	r := start(t, cfg)
	if err := os.Remove(r.socket); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	wants(t, r.health+"/healthz", 503, "asking unix://")
	wants(t, r.health+"/readyz", 503, "asking unix://")
}

// While the last calls end, the provider is not ready, and its metrics are still there.
func TestStopping(t *testing.T) {
	called, release := make(chan struct{}), make(chan struct{})
	r := start(t, base(t, fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) {
		close(called)
		<-release
		return &provider.Bundle{}, nil
	})))
	mounted := make(chan error, 1)
	go func() {
		_, err := r.client.Fetch(context.Background(), &provider.Request{})
		mounted <- err
	}()
	<-called
	r.cancel()
	patience, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for { // until the end of the context has been noticed
		if status, body := do(t, http.MethodGet, r.health+"/readyz"); status == 503 && strings.Contains(body, "stopping") {
			break
		}
		if patience.Err() != nil {
			t.Fatal("it does not say that it is stopping")
		}
	}
	wants(t, r.metrics+"/metrics", 200, `keymount_provider_fetches_in_flight{provider="azure"} 1`)
	close(release)
	if err := <-mounted; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	r.stop(t)
}

// Every series of upstream's names, and the clean set, are what calls make of them; no text of an error makes one.
func TestMetrics(t *testing.T) {
	n := 0
	cfg := base(t, fetch(func(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
		if n++; n > 1 {
			return nil, &provider.Error{Kind: provider.Denied, Message: fmt.Sprint("hunter2 trace id ", n)}
		}
		return empty(ctx, req)
	}))
	r := start(t, cfg)
	for range 20 {
		r.client.Fetch(t.Context(), &provider.Request{})
	}
	cfg.Instruments.Read("secret", 250*time.Millisecond, nil)
	cfg.Instruments.Read("key", time.Second, &provider.Error{Kind: provider.NotFound, Message: "hunter2"})
	cfg.Instruments.Read("cert", time.Second, errors.New("hunter2"))
	_, text := do(t, http.MethodGet, r.metrics+"/metrics")
	const common = `os_type="` + runtime.GOOS + `",provider="azure",service_name="the-service"`
	for _, want := range []string{
		`keyvault_request_bucket{error="",object_name="",object_type="secret",` + common + `,le="0.3"} 1`,
		`keyvault_request_bucket{error="",object_name="",object_type="secret",` + common + `,le="0.2"} 0`,
		`keyvault_request_count{error="` + provider.NotFound.String() + `",object_name="",object_type="key",` + common + `} 1`,
		`keyvault_request_count{error="` + provider.Internal.String() + `",object_name="",object_type="cert",` + common + `} 1`,
		`grpc_request_count{grpc_code="OK",grpc_message="",grpc_method="/v1alpha1.CSIDriverProvider/Mount",` + common + `} 1`,
		`grpc_request_count{grpc_code="PermissionDenied",grpc_message="` + provider.Denied.String() +
			`",grpc_method="/v1alpha1.CSIDriverProvider/Mount",` + common + `} 19`,
		`keymount_provider_fetch_duration_seconds_count{provider="azure",result="ok"} 1`,
		`keymount_provider_fetch_duration_seconds_count{provider="azure",result="` + provider.Denied.String() + `"} 19`,
		`keymount_provider_reads_total{provider="azure"} 7`, `keymount_provider_shared_reads_total{provider="azure"} 6`,
		`keymount_provider_throttled_total{provider="azure"} 0`, `keymount_provider_token_fetches_total{provider="azure",result="failed"} 0`,
		`keymount_build_info{`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, "hunter2") || strings.Count(text, "grpc_request_count{") != 2 {
		t.Errorf("texts of errors became series:\n%s", text)
	}
	wants(t, r.metrics+"/debug/pprof/", 404, "") // upstream serves it here, to everybody
	wants(t, r.metrics+"/healthz", 404, "")
	r.stop(t)
}

// A fetch that panics is counted as a failure and ends.
func TestMetricsOfAPanic(t *testing.T) {
	r := start(t, base(t, fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) { panic("hunter2") })))
	if _, err := r.client.Fetch(t.Context(), &provider.Request{}); err == nil {
		t.Fatal("no error")
	}
	wants(t, r.metrics+"/metrics", 200, `keymount_provider_fetches_in_flight{provider="azure"} 0`)
	wants(t, r.metrics+"/metrics", 200, `keymount_provider_fetch_duration_seconds_count{provider="azure",result="`+provider.Internal.String()+`"} 1`)
	r.stop(t)
}

func TestProfilesAreApart(t *testing.T) {
	cfg := base(t, fetch(empty))
	cfg.Profiles = "127.0.0.1:0"
	r := start(t, cfg)
	wants(t, r.profiles+"/debug/pprof/", 200, "goroutine")
	wants(t, r.profiles+"/metrics", 404, "")
	wants(t, r.health+"/debug/pprof/", 404, "")
	r.stop(t)
}

// A port that another process has is an error that says what to do, and the socket is left to whoever has it.
func TestPortsAreTakenBeforeTheSocket(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, change := range []func(*providerd.Config, string){
		func(c *providerd.Config, a string) { c.Health = a },
		func(c *providerd.Config, a string) { c.Metrics = a },
		func(c *providerd.Config, a string) { c.Profiles = a },
	} {
		cfg := base(t, fetch(empty))
		change(&cfg, taken.Addr().String())
		if err := providerd.Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "give another port") {
			t.Errorf("got %v", err)
		}
		if _, err := os.Lstat(strings.TrimPrefix(cfg.Endpoint.String(), "unix://")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket was taken: %v", err)
		}
	}
}

// A socket that cannot be had gives the ports back.
func TestNoSocket(t *testing.T) {
	cfg := base(t, fetch(empty))
	at, err := socket.ParseEndpoint("unix:///no/such/folder/p.sock")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	cfg.Endpoint, cfg.Health = at, l.Addr().String()
	for range 2 {
		if err := providerd.Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "/no/such/folder") {
			t.Errorf("got %v", err)
		}
	}
}

// TCP is served, with a warning first; health asks it there.
func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	cfg := base(t, fetch(empty))
	if cfg.Endpoint, err = socket.ParseEndpoint("tcp://" + l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	health, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	health.Close()
	cfg.Health = health.Addr().String()
	line := &firstLine{written: make(chan struct{})}
	cfg.Log = slog.New(slog.NewTextHandler(line, nil))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- providerd.Run(ctx, cfg) }()
	<-line.written
	wants(t, "http://"+cfg.Health+"/healthz", 200, "ok")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !strings.Contains(line.b.String(), "in the clear") {
		t.Errorf("logged %s", line.b.String())
	}
}
