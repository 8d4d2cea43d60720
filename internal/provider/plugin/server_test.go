package plugin_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
)

func dial(t testing.TB, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func empty(context.Context, *provider.Request) (*provider.Bundle, error) {
	return &provider.Bundle{}, nil
}

const hidden = "hunter2-the-secret"

// A row is a good request plus one change, and the code and part of the text that comes back. No text repeats a value.
func TestRequestsAreChecked(t *testing.T) {
	const tokens = `"csi.storage.k8s.io/serviceAccount.tokens":`
	for _, tc := range []struct {
		name   string
		change func(*v1alpha1.MountRequest)
		code   codes.Code
		want   []string
	}{
		{"good", func(*v1alpha1.MountRequest) {}, codes.OK, nil},
		{"secrets null", func(r *v1alpha1.MountRequest) { r.Secrets = "null" }, codes.OK, nil},
		{"attributes null", func(r *v1alpha1.MountRequest) { r.Attributes = "null" }, codes.OK, nil},
		{"no attributes", func(r *v1alpha1.MountRequest) { r.Attributes = "" }, codes.InvalidArgument, []string{"failed to unmarshal attributes, error: "}},
		{"no secrets", func(r *v1alpha1.MountRequest) { r.Secrets = "" }, codes.InvalidArgument, []string{"failed to unmarshal secrets, error: "}},
		{"no permission", func(r *v1alpha1.MountRequest) { r.Permission = "" }, codes.InvalidArgument, []string{"failed to unmarshal file permission, error: "}},
		{"cut off", func(r *v1alpha1.MountRequest) { r.Secrets = `{"a":"` + hidden }, codes.InvalidArgument, []string{"failed to unmarshal secrets, error: "}},
		{"not JSON", func(r *v1alpha1.MountRequest) { r.Secrets = hidden }, codes.InvalidArgument, []string{"not valid JSON at byte 1"}},
		{"a number among secrets", func(r *v1alpha1.MountRequest) { r.Secrets = `{"a":"` + hidden + `","pin":1234567}` },
			codes.InvalidArgument, []string{"wrong type before byte", "want string"}},
		{"a list", func(r *v1alpha1.MountRequest) { r.Attributes = `["` + hidden + `"]` }, codes.InvalidArgument, []string{"failed to unmarshal attributes, error: "}},
		{"permission in quotes", func(r *v1alpha1.MountRequest) { r.Permission = `"420"` }, codes.InvalidArgument, []string{"failed to unmarshal file permission, error: "}},
		{"permission below 0", func(r *v1alpha1.MountRequest) { r.Permission = "-1" }, codes.InvalidArgument, []string{"failed to unmarshal file permission, error: "}},
		{"permission with set-uid", func(r *v1alpha1.MountRequest) { r.Permission = "2541" }, codes.InvalidArgument, []string{"not a file mode from 0 to 511"}},
		{"tokens in attributes", func(r *v1alpha1.MountRequest) { r.Attributes = `{` + tokens + `"{\"aud\":\"` + hidden + `\"}"}` },
			codes.InvalidArgument, []string{"failed to unmarshal service account tokens, error: "}},
		{"tokens in secrets", func(r *v1alpha1.MountRequest) { r.Secrets = `{` + tokens + `"` + hidden + `"}` },
			codes.InvalidArgument, []string{"failed to unmarshal service account tokens, error: "}},
		{"a time in tokens", func(r *v1alpha1.MountRequest) {
			r.Secrets = `{` + tokens + `"{\"a\":{\"token\":\"x\",\"expirationTimestamp\":\"` + hidden + `\"}}"}`
		}, codes.InvalidArgument, []string{"not in the form that the protocol prescribes"}},
		{"everything at once", func(r *v1alpha1.MountRequest) { r.Attributes, r.Secrets, r.Permission = "", "[]", "x" },
			codes.InvalidArgument, []string{"unmarshal attributes", "unmarshal secrets", "unmarshal file permission"}},
		{"versions beyond bounds", func(r *v1alpha1.MountRequest) {
			for range 16385 {
				r.CurrentObjectVersion = append(r.CurrentObjectVersion, &v1alpha1.ObjectVersion{})
			}
		}, codes.InvalidArgument, []string{"more than 16384"}},
		{"deep", func(r *v1alpha1.MountRequest) { r.Attributes = strings.Repeat("[", 1<<20) }, codes.InvalidArgument, []string{"failed to unmarshal attributes"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			socket := socketPath(t)
			var log syncBuffer
			stop := serve(t, socket, fetch(empty), &log)
			req := &v1alpha1.MountRequest{Attributes: `{"a":"b"}`, Secrets: `{"password":"` + hidden + `"}`, Permission: "420"}
			tc.change(req)
			answer, err := v1alpha1.NewCSIDriverProviderClient(dial(t, socket)).Mount(deadline(t), req)
			if status.Code(err) != tc.code || answer.GetError() != nil {
				t.Errorf("code %v, want %v: %v", status.Code(err), tc.code, err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("text %q, want %q", err, want)
				}
			}
			stop()
			if text := fmt.Sprint(err) + log.String(); strings.Contains(text, hidden) || strings.Contains(text, "1234567") {
				t.Errorf("a secret is in %s", text)
			}
		})
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// The code of a kind, as upstream's driver sees it.
func TestCodes(t *testing.T) {
	for kind, want := range map[provider.Kind]codes.Code{
		provider.Invalid: codes.InvalidArgument, provider.NotFound: codes.NotFound, provider.Denied: codes.PermissionDenied,
		provider.Throttled: codes.ResourceExhausted, provider.Unavailable: codes.Unavailable, provider.Internal: codes.Internal,
	} {
		socket := socketPath(t)
		serve(t, socket, fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) {
			return nil, &provider.Error{Kind: kind, Message: "m"}
		}), io.Discard)
		_, err := mounts(t, socket).Mount(deadline(t), goodMount())
		if status.Code(err) != want {
			t.Errorf("%v became %v, want %v", kind, status.Code(err), want)
		}
	}
}

func mounts(t testing.TB, socket string) v1alpha1.CSIDriverProviderClient {
	return v1alpha1.NewCSIDriverProviderClient(dial(t, socket))
}

func goodMount() *v1alpha1.MountRequest {
	return &v1alpha1.MountRequest{Attributes: "{}", Secrets: "null", Permission: "420"}
}

// A panic fails its own call and no other, and what it carried stays hidden.
func TestPanic(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func()
		logs string
	}{
		{"a value", func() { panic(hidden) }, "a value of type string"},
		{"of the runtime", func() { _ = []int{}[len(os.Args)] }, "index out of range"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			socket := socketPath(t)
			var log syncBuffer
			broken := true
			stop := serve(t, socket, fetch(func(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
				if broken {
					tc.do()
				}
				return empty(ctx, req)
			}), &log)
			c := client(t, socket)
			_, err := c.Fetch(deadline(t), request())
			if provider.KindOf(err) != provider.Internal || !strings.Contains(err.Error(), "did not expect") {
				t.Errorf("got %v", err)
			}
			broken = false
			if _, err := c.Fetch(deadline(t), request()); err != nil {
				t.Errorf("the next call: %v", err)
			}
			stop()
			if text := log.String(); strings.Contains(text, hidden) || !strings.Contains(text, tc.logs) || !strings.Contains(text, "server_test.go") {
				t.Errorf("the log is %s", text)
			}
		})
	}
}

func TestNeitherBundleNorError(t *testing.T) {
	socket := socketPath(t)
	serve(t, socket, fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) { return nil, nil }), io.Discard)
	if _, err := client(t, socket).Fetch(deadline(t), request()); provider.KindOf(err) != provider.Internal {
		t.Errorf("got %v", err)
	}
}

// One line per call, with its outcome and without what it carried.
func TestLog(t *testing.T) {
	socket := socketPath(t)
	var log syncBuffer
	fail := false
	stop := serve(t, socket, fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) {
		if fail {
			return nil, &provider.Error{Kind: provider.Denied, Message: "no"}
		}
		return &provider.Bundle{
			Files:    []provider.File{{Path: "f", Contents: provider.Contents(hidden)}},
			Versions: []provider.ObjectVersion{{ID: "o"}}, Warnings: []string{"mind\nthis"},
		}, nil
	}), &log)
	c := client(t, socket)
	req := request()
	req.Parameters["p"] = hidden
	req.Secrets = map[string]provider.Sensitive{"s": hidden}
	req.Tokens = map[string]provider.Token{"a": {Value: hidden, Proof: provider.ProvenByRequest}}
	req.Pod.Name = "evil\nlevel=ERROR"
	if _, err := c.Fetch(deadline(t), req); err != nil {
		t.Fatal(err)
	}
	fail = true
	if _, err := c.Fetch(deadline(t), req); err == nil {
		t.Fatal("no error")
	}
	stop()
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines: %s", len(lines), log.String())
	}
	for i, want := range []string{"warning=", "files=1", "kind=denied"} {
		if !strings.Contains(lines[i], want) || !strings.Contains(lines[i], "namespace=ns") || strings.Contains(lines[i], hidden) {
			t.Errorf("line %d is %s", i, lines[i])
		}
	}
}

func TestHealth(t *testing.T) {
	socket := socketPath(t)
	serve(t, socket, fetch(empty), io.Discard)
	health := healthpb.NewHealthClient(dial(t, socket))
	got, err := health.Check(deadline(t), &healthpb.HealthCheckRequest{})
	if err != nil || got.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("check: %v, %v", got, err)
	}
	if _, err := health.Check(deadline(t), &healthpb.HealthCheckRequest{Service: "x"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v", err)
	}
	watch, err := health.Watch(deadline(t), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || got.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("watch: %v, %v", got, err)
	}
}

// A stop lets calls under way end, and takes no new ones.
func TestGracefulStop(t *testing.T) {
	socket := socketPath(t)
	called, release := make(chan struct{}), make(chan struct{})
	stop := serve(t, socket, fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) {
		close(called)
		<-release
		return &provider.Bundle{}, nil
	}), io.Discard)
	result := make(chan error, 1)
	c := client(t, socket)
	go func() {
		_, err := c.Fetch(context.Background(), request())
		result <- err
	}()
	<-called
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	for { // the socket goes first
		if _, err := os.Lstat(socket); err != nil {
			break
		}
		runtime.Gosched()
	}
	close(release)
	if err := <-result; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	<-stopped
}

// A call that does not end, not even when it is told to, holds up nothing.
func TestStopIsBounded(t *testing.T) {
	socket := socketPath(t)
	l, err := plugin.Listen("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	called, never := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(never) })
	server := plugin.NewServer(fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) {
		close(called)
		<-never // deaf to its context
		return &provider.Bundle{}, nil
	}), plugin.Info{}, slog.New(slog.DiscardHandler))
	server.SetStop(10 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, l) }()
	c := clientOf(t, plugin.ClientConfig{Socket: socket, ConnectWithin: 10 * time.Millisecond})
	go c.Fetch(context.Background(), request())
	<-called
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("serving ended with %v", err)
	}
}

func TestServeReportsALostListener(t *testing.T) {
	l, err := plugin.Listen("tcp://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	server := plugin.NewServer(fetch(empty), plugin.Info{}, slog.New(slog.DiscardHandler))
	if err := server.Serve(t.Context(), l); err == nil {
		t.Error("no error")
	}
}

func TestListen(t *testing.T) {
	for _, tc := range []struct{ name, endpoint, want string }{
		{"no scheme", "/tmp/x.sock", "invalid endpoint: /tmp/x.sock"},
		{"another scheme", "http://x", "invalid endpoint: http://x"},
		{"nothing after it", "unix://", "invalid endpoint: unix://"},
		{"nothing", "", "invalid endpoint: "},
		{"no folder", "unix:///no/such/folder/x.sock", "/no/such/folder"},
		{"a bad port", "tcp://127.0.0.1:99999", "127.0.0.1:99999"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := plugin.Listen(tc.endpoint); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}
