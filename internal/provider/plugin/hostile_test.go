package plugin_test

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
)

// Anybody can write details as our own server does. They go to logs, Events and terminals like any other text of theirs.
func TestDetailsAreCleanedAndBounded(t *testing.T) {
	dirty := "a\x1b[31m\u202eb" + strings.Repeat("x", 5000)
	st, err := status.New(codes.Internal, "text").WithDetails(&errdetails.ErrorInfo{Domain: "keymount.dev", Reason: "denied",
		Metadata: map[string]string{"object": dirty, "message": dirty, "remedy": dirty, "retryAfter": "90000h"}})
	if err != nil {
		t.Fatal(err)
	}
	socket := socketPath(t)
	serveForeign(t, socket, func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) { return nil, st.Err() })
	_, err = client(t, socket).Fetch(deadline(t), request())
	all := provider.ErrorsOf(err)
	if len(all) != 1 || all[0].Kind != provider.Denied || all[0].RetryAfter != time.Hour {
		t.Fatalf("%d failures: %v", len(all), err)
	}
	for name, text := range map[string]string{"object": all[0].Object, "message": all[0].Message, "remedy": all[0].Remedy} {
		if !strings.HasPrefix(text, "a [31m bxx") || !strings.HasSuffix(text, "x...") || len(text) > 2048 {
			t.Errorf("%s has %d bytes: %.20q...", name, len(text), text)
		}
	}
}

// A driver that sets no deadline, and goes away in a manner that nobody notices, must not leave calls that never end.
func TestCallsWithoutADeadlineEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := fetch(func(ctx context.Context, _ *provider.Request) (*provider.Bundle, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		start := time.Now()
		_, err := plugin.NewServer(hangs, plugin.Info{}, slog.New(slog.DiscardHandler)).Mount(t.Context(),
			&v1alpha1.MountRequest{Attributes: "{}", Secrets: "{}", Permission: "420"})
		if took := time.Since(start); err == nil || took > 2*time.Minute {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// Warnings become log lines and Events.
func TestWarningsAreBounded(t *testing.T) {
	socket := socketPath(t)
	serveForeign(t, socket, func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		out := &v1alpha1.MountResponse{ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "o", Version: "1"}}}
		for i := range 1000 {
			out.Files = append(out.Files, &v1alpha1.File{Path: strconv.Itoa(i), Mode: 0o4755})
		}
		return out, nil
	})
	b, err := client(t, socket).Fetch(deadline(t), request())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(b.Warnings); len(b.Files) != 1000 || n != 33 || b.Warnings[n-1] != "the modes of 968 more files were cut in the same way" {
		t.Errorf("%d files, %d warnings, the last is %q", len(b.Files), n, b.Warnings[n-1])
	}
}

// A dropper closes every connection that it has taken.
type dropper struct {
	net.Listener
	mu    sync.Mutex
	taken []net.Conn
}

func (d *dropper) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.taken = append(d.taken, c)
	return c, err
}

func (d *dropper) drop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.taken {
		c.Close()
	}
	d.taken = nil
}

// A provider that goes away in every call is asked twice, not again and again until the deadline.
func TestProviderThatAlwaysGoesAway(t *testing.T) {
	socket := socketPath(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	d := &dropper{Listener: l}
	g := grpc.NewServer()
	var calls atomic.Int64
	v1alpha1.RegisterCSIDriverProviderServer(g, foreign{mount: func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		calls.Add(1)
		d.drop()
		return &v1alpha1.MountResponse{}, nil
	}})
	ended := make(chan struct{})
	go func() { defer close(ended); g.Serve(d) }()
	t.Cleanup(func() { g.Stop(); <-ended })
	_, err = client(t, socket).Fetch(deadline(t), request())
	if provider.KindOf(err) != provider.Unavailable || err == nil || !strings.Contains(err.Error(), "went away during the call") {
		t.Errorf("kind %v: %v", provider.KindOf(err), err)
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("it was called %d times, want 2", n)
	}
}

// A class whose request no provider takes is not told that an answer was too large: JSON makes six bytes of some letters.
func TestARequestThatIsTooLarge(t *testing.T) {
	socket := socketPath(t)
	serveForeign(t, socket, func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		return &v1alpha1.MountResponse{}, nil
	})
	req := request()
	req.Parameters = map[string]string{"objects": strings.Repeat("<", 1<<20)}
	_, err := client(t, socket).Fetch(deadline(t), req)
	if provider.KindOf(err) != provider.Invalid || err == nil || !strings.Contains(err.Error(), "takes no requests of 6") || !strings.Contains(err.Error(), "split the class") {
		t.Errorf("got %v", err)
	}
}
