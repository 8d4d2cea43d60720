package plugin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
	"keymount/internal/provider/providertest"
)

// folder is a new folder for sockets, with a short name.
func folder(t testing.TB) string { return filepath.Dir(socketPath(t)) }

func foldersOf(t testing.TB, cfg plugin.FoldersConfig) *plugin.Folders {
	t.Helper()
	if cfg.ConnectWithin == 0 {
		cfg.ConnectWithin = time.Minute
	}
	f := plugin.NewFolders(cfg)
	t.Cleanup(f.Close)
	return f
}

// askFor asks the provider of a name, as publish does: looked up at each call.
func askFor(t testing.TB, f *plugin.Folders, name string) (string, error) {
	t.Helper()
	p, err := f.Provider(name)
	if err != nil {
		return "", err
	}
	b, err := p.Fetch(deadline(t), request())
	if err != nil {
		return "", err
	}
	return b.Versions[0].Version, nil
}

func stale(t testing.TB, socket string) { serveForeign(t, socket, nil)() }

func TestLookupErrors(t *testing.T) {
	t.Attr("conformance", "12.4/name")
	a, b := folder(t), folder(t)
	f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a, "", b}})
	for _, tc := range []struct {
		name string
		want string // the beginning, which is upstream's
		kind provider.Kind
		also []string
	}{
		{"nobody", `provider not found: provider "nobody"`, provider.NotFound, []string{a + " or " + b, "DaemonSet"}},
		{"a/b", `invalid provider: provider "a/b"`, provider.Invalid, []string{"spec.provider"}},
		{"..", `invalid provider: provider ".."`, provider.Invalid, nil},
		{"a\n", `invalid provider: provider "a\n"`, provider.Invalid, nil},
		{"a b", `invalid provider: provider "a b"`, provider.Invalid, nil},
		{strings.Repeat("x", 30), `provider not found: provider "xxx`, provider.NotFound, nil},
		{strings.Repeat("x", 31), `invalid provider: provider "xxx`, provider.Invalid, nil},
		{strings.Repeat("x", 1<<20), `invalid provider: provider "xxx`, provider.Invalid, nil},
	} {
		p, err := f.Provider(tc.name)
		if p != nil || err == nil || !strings.HasPrefix(err.Error(), tc.want) || provider.KindOf(err) != tc.kind || len(err.Error()) > 1000 {
			t.Errorf("%.40q: got %v, %v %.200v", tc.name, p, provider.KindOf(err), err)
			continue
		}
		for _, part := range tc.also {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%.40q: %q is not in %v", tc.name, part, err)
			}
		}
		var typed interface{ ErrorType() string }
		if !errors.As(err, &typed) || typed.ErrorType() != "FailedToLookupProviderGRPCClient" {
			t.Errorf("%.40q: it has no error type", tc.name)
		}
		if f.Known(tc.name) {
			t.Errorf("%.40q is known", tc.name)
		}
	}
}

// fullBacklog listens without ever accepting, and fills the queue.
func fullBacklog(t *testing.T, socket string) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: socket}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 16 {
		c, err := net.Dial("unix", socket)
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue does not fill")
}

func silent(t *testing.T, socket string) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

// leftovers are what an earlier folder may hold in the place of a provider.
var leftovers = []struct {
	name string
	make func(t *testing.T, socket string)
	says string
}{
	{"nothing", func(*testing.T, string) {}, "it does not exist"},
	{"a stale socket", func(t *testing.T, socket string) { stale(t, socket) }, "nobody listens"},
	{"a file", func(t *testing.T, socket string) { os.WriteFile(socket, nil, 0o600) }, "it is no socket"},
	{"a folder", func(t *testing.T, socket string) { os.Mkdir(socket, 0o700) }, "it is no socket"},
	{"a dangling link", func(t *testing.T, socket string) { os.Symlink("nowhere", socket) }, "leads to nothing"},
	{"a link to itself", func(t *testing.T, socket string) { os.Symlink(filepath.Base(socket), socket) }, "takes no connection"},
	{"a full queue", fullBacklog, "takes no connection"},
	{"somebody silent", silent, "does not speak gRPC"},
}

// Whatever an earlier folder holds, who lives in a later one is found. Upstream stops at the first path that exists.
func TestLeftoversShadowNobody(t *testing.T) {
	t.Attr("conformance", "10.1/17-stale-socket-shadows-nobody")
	for _, tc := range leftovers {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a, b := folder(t), folder(t)
			tc.make(t, filepath.Join(a, "p.sock"))
			serveForeign(t, filepath.Join(b, "p.sock"), answering("live"))
			f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a, b}})
			for range 2 {
				if got, err := askFor(t, f, "p"); got != "live" {
					t.Fatalf("got %q, %v", got, err)
				}
			}
		})
	}
}

// Where nobody listens anywhere, the error says what each folder holds, after the time that a restart may take.
func TestNobodyListensInAnyFolder(t *testing.T) {
	for _, tc := range leftovers {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a, b := folder(t), folder(t)
			tc.make(t, filepath.Join(a, "p.sock"))
			stale(t, filepath.Join(b, "p.sock"))
			f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a, b}, ConnectWithin: 100 * time.Millisecond})
			p, err := f.Provider("p")
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.Fetch(t.Context(), request()) // without a deadline
			if provider.KindOf(err) != provider.Unavailable {
				t.Fatalf("got %v %v", provider.KindOf(err), err)
			}
			for _, want := range []string{`nobody answers for provider "p"`, filepath.Join(a, "p.sock") + ": ", tc.says,
				filepath.Join(b, "p.sock") + ": it is there, but nobody listens"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %v", want, err)
				}
			}
		})
	}
}

func TestFirstFolderWins(t *testing.T) {
	t.Attr("conformance", "12.4/both-folders")
	a, b := folder(t), folder(t)
	serveForeign(t, filepath.Join(a, "p.sock"), answering("first"))
	serveForeign(t, filepath.Join(b, "p.sock"), answering("last"))
	f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a, b}})
	if got, err := askFor(t, f, "p"); got != "first" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A provider that moves from one folder to the other is followed, in either direction, whatever it leaves behind.
func TestProviderMoves(t *testing.T) {
	t.Attr("conformance", "10.1/17-connections-follow")
	for _, tc := range []struct{ from, to int }{{0, 1}, {1, 0}} {
		for _, leaves := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d to %d, leaving its socket: %v", tc.from, tc.to, leaves), func(t *testing.T) {
				folders := []string{folder(t), folder(t)}
				from, to := filepath.Join(folders[tc.from], "p.sock"), filepath.Join(folders[tc.to], "p.sock")
				kill := serveForeign(t, from, answering("old"))
				f := foldersOf(t, plugin.FoldersConfig{Folders: folders})
				if got, err := askFor(t, f, "p"); got != "old" {
					t.Fatalf("got %q, %v", got, err)
				}
				kill()
				if !leaves {
					os.Remove(from)
				}
				serveForeign(t, to, answering("new"))
				if got, err := askFor(t, f, "p"); got != "new" {
					t.Errorf("got %q, %v", got, err)
				}
			})
		}
	}
}

// A call that is under way when its provider dies is made again where the provider is then.
func TestProviderMovesDuringTheCall(t *testing.T) {
	a, b := folder(t), folder(t)
	called := make(chan struct{})
	kill := serveForeign(t, filepath.Join(a, "p.sock"), func(ctx context.Context, _ *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		close(called)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a, b}})
	ended := make(chan error, 1)
	go func() {
		got, err := askFor(t, f, "p")
		if err == nil && got != "new" {
			err = fmt.Errorf("got %q", got)
		}
		ended <- err
	}()
	<-called
	serveForeign(t, filepath.Join(b, "p.sock"), answering("new"))
	kill()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A provider that was here a moment ago and whose socket is gone is restarting, not unknown.
func TestRestartIsWaitedFor(t *testing.T) {
	a := folder(t)
	socket := filepath.Join(a, "p.sock")
	kill := serveForeign(t, socket, answering("old"))
	f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a}})
	if _, err := askFor(t, f, "p"); err != nil {
		t.Fatal(err)
	}
	kill()
	os.Remove(socket)
	p, err := f.Provider("p")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := p.Fetch(deadline(t), request())
		ended <- err
	}()
	serveForeign(t, socket, answering("new"))
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// One that does not come back is not found, as if it had never been there.
func TestRestartIsNotWaitedForForEver(t *testing.T) {
	a := folder(t)
	socket := filepath.Join(a, "p.sock")
	kill := serveForeign(t, socket, answering("old"))
	f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a}, ConnectWithin: 200 * time.Millisecond})
	if _, err := askFor(t, f, "p"); err != nil {
		t.Fatal(err)
	}
	kill()
	os.Remove(socket)
	if _, err := askFor(t, f, "p"); err == nil || !strings.HasPrefix(err.Error(), `provider not found: provider "p"`) {
		t.Errorf("got %v", err)
	}
}

func TestClosedFolders(t *testing.T) {
	a := folder(t)
	serveForeign(t, filepath.Join(a, "p.sock"), answering("1"))
	f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a}})
	if _, err := askFor(t, f, "p"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	f.CheckHealth(deadline(t))
	f.CloseIdle()
	if _, err := askFor(t, f, "p"); err == nil || !strings.Contains(err.Error(), "are closed") {
		t.Errorf("got %v", err)
	}
}

// Whoever waits for nobody stops when told to, and the cause says why.
func TestWaitForNobodyIsCancelled(t *testing.T) {
	a := folder(t)
	stale(t, filepath.Join(a, "p.sock"))
	f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a}, ConnectWithin: time.Hour})
	p, err := f.Provider("p")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := p.Fetch(ctx, request())
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || provider.KindOf(err) != provider.Unavailable ||
		!strings.Contains(err.Error(), "waiting for a connection") {
		t.Errorf("got %v %v", provider.KindOf(err), err)
	}
}

func TestSuiteThroughFolders(t *testing.T) {
	providertest.Run(t, func(t *testing.T) *providertest.Harness {
		fake := providertest.NewFake()
		a := folder(t)
		serve(t, filepath.Join(a, "p.sock"), fake, io.Discard)
		h := fake.Harness()
		p, err := foldersOf(t, plugin.FoldersConfig{Folders: []string{t.TempDir(), a}}).Provider("p")
		if err != nil {
			t.Fatal(err)
		}
		h.Provider = p
		return h
	})
}
