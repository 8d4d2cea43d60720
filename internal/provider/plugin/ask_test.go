package plugin_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
	"keymount/internal/socket"
)

func endpointOf(t *testing.T, text string) socket.Endpoint {
	t.Helper()
	at, err := socket.ParseEndpoint(text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestAsk(t *testing.T) {
	path := socketPath(t)
	serve(t, path, fetch(empty), &syncBuffer{})
	at := endpointOf(t, "unix://"+path)
	if info, err := plugin.Ask(deadline(t), at); err != nil || info.RuntimeName != "test" {
		t.Errorf("got %+v, %v", info, err)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := plugin.Ask(deadline(t), at); err == nil || !strings.Contains(err.Error(), "asking unix://"+path+": Unavailable: ") {
		t.Errorf("nobody is there: %v", err)
	}
	silent, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := plugin.Ask(ctx, at); err == nil || !strings.Contains(err.Error(), "DeadlineExceeded") {
		t.Errorf("somebody silent is there: %v", err)
	}
}

func TestOnAnswer(t *testing.T) {
	path := socketPath(t)
	l, err := plugin.Listen("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	do := fetch(empty)
	server := plugin.NewServer(fetch(func(ctx context.Context, req *provider.Request) (*provider.Bundle, error) { return do(ctx, req) }),
		plugin.Info{}, slog.New(slog.DiscardHandler))
	var mu sync.Mutex
	var got []string
	server.OnAnswer(func(a plugin.Answer) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, strings.TrimPrefix(a.Method, "/v1alpha1.CSIDriverProvider/")+" "+a.Code+" "+a.Kind)
		if a.Took <= 0 {
			t.Errorf("%s took %v", a.Method, a.Took)
		}
	})
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(t.Context(), l) }()
	t.Cleanup(func() { <-ended })
	c := clientOf(t, plugin.ClientConfig{Socket: path})
	if _, err := c.Version(deadline(t)); err != nil {
		t.Fatal(err)
	}
	c.Fetch(deadline(t), request())
	do = func(context.Context, *provider.Request) (*provider.Bundle, error) {
		return nil, &provider.Error{Kind: provider.Throttled, Message: "hunter2"}
	}
	c.Fetch(deadline(t), request())
	do = func(context.Context, *provider.Request) (*provider.Bundle, error) { panic("hunter2") }
	c.Fetch(deadline(t), request())
	mu.Lock()
	defer mu.Unlock()
	want := "Version OK ,Mount OK ,Mount ResourceExhausted " + provider.Throttled.String() + ",Mount Internal " + provider.Internal.String()
	if all := strings.Join(got, ","); all != want {
		t.Errorf("got %q, want %q", all, want)
	}
}
