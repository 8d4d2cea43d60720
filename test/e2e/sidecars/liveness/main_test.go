//go:build integration && linux

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"keymount/test/e2e/launch"
	"keymount/test/integration/await"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"liveness": main})
}

type driver struct {
	csi.UnimplementedIdentityServer
	probe func(context.Context) (*csi.ProbeResponse, error)
}

func (d driver) Probe(ctx context.Context, _ *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return d.probe(ctx)
}

func TestHealthz(t *testing.T) {
	for _, tc := range []struct {
		name  string
		probe func(context.Context) (*csi.ProbeResponse, error) // nil: nobody serves
		code  int
		want  string
	}{
		{"says nothing", func(context.Context) (*csi.ProbeResponse, error) { return &csi.ProbeResponse{}, nil }, 200, "ok"},
		{"not ready", func(context.Context) (*csi.ProbeResponse, error) {
			return &csi.ProbeResponse{Ready: wrapperspb.Bool(false)}, nil
		}, 500, "the driver is not ready"},
		{"hangs", func(ctx context.Context) (*csi.ProbeResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, 500, "DeadlineExceeded"},
		{"nobody serves", nil, 500, "Unavailable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "csi.sock")
			if tc.probe != nil {
				l, err := net.Listen("unix", socket)
				if err != nil {
					t.Fatal(err)
				}
				g := grpc.NewServer()
				csi.RegisterIdentityServer(g, driver{probe: tc.probe})
				go g.Serve(l)
				t.Cleanup(g.Stop)
			}
			address := freeAddress(t)
			p := launch.Start(t, "liveness", "--csi-address="+socket, "--probe-timeout=500ms", "--http-endpoint="+address, "-v=2")
			var code int
			var body string
			if err := await.For(t.Context(), "/healthz", func(context.Context) (err error) {
				if err := p.Running(); err != nil {
					return await.Never(err)
				}
				code, body, err = get(address)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if code != tc.code || !strings.Contains(body, tc.want) {
				t.Errorf("%d %q, want %d %q", code, body, tc.code, tc.want)
			}
			p.Term(t)
			if code, said := p.Wait(t); code != 0 {
				t.Errorf("it ended with %d and said %q", code, said)
			}
		})
	}
}

// freeAddress is one that nobody had a moment ago; if somebody takes it meanwhile, the program says so and the test fails.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func get(address string) (int, string, error) {
	resp, err := http.Get("http://" + address + "/healthz")
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if code, said := launch.Start(t, "liveness", "--http-endpoint="+l.Addr().String()).Wait(t); code != 1 || !strings.Contains(said, "listening for probes") {
		t.Errorf("it ended with %d and said %q", code, said)
	}
}
