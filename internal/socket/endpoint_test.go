//go:build !windows

package socket_test

import (
	"flag"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keymount/internal/socket"
)

func endpoint(t testing.TB, text string) socket.Endpoint {
	t.Helper()
	e, err := socket.ParseEndpoint(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// socketDir returns a folder whose path is short enough for sockets.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "km")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestParseEndpoint(t *testing.T) {
	for _, tc := range []struct{ text, want, folder string }{
		{"unix:///csi/csi.sock", "unix:///csi/csi.sock", "/csi"},
		{"unix://tmp/csi.sock", "unix:///tmp/csi.sock", "/tmp"},
		{"UNIX:///csi/csi.sock", "unix:///csi/csi.sock", "/csi"},
		{"unix:////csi//x/../csi.sock", "unix:///csi/csi.sock", "/csi"},
		{"tcp://127.0.0.1:9000", "tcp://127.0.0.1:9000", ""},
		{"TCP://:9000", "tcp://:9000", ""},
		{"tcp://[::1]:9000", "tcp://[::1]:9000", ""},
	} {
		e := endpoint(t, tc.text)
		if e.String() != tc.want || e.Folder() != tc.folder || e.IsUnix() != (tc.folder != "") {
			t.Errorf("%s: %s in %q, want %s in %q", tc.text, e, e.Folder(), tc.want, tc.folder)
		}
		if again := endpoint(t, e.String()); again != e {
			t.Errorf("%s: read again it is %s", e, again)
		}
	}
	for _, text := range []string{"", "unix", "unix:", "unix:/csi.sock", "unix://", "tcp://", "tcp://localhost", "http://x:1", "/csi.sock", "://x"} {
		if _, err := socket.ParseEndpoint(text); err == nil || !strings.Contains(err.Error(), "invalid endpoint: "+text) {
			t.Errorf("%q: error %v", text, err)
		}
	}
}

func TestEndpointIsAFlag(t *testing.T) {
	var e socket.Endpoint
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.TextVar(&e, "endpoint", endpoint(t, "unix://tmp/csi.sock"), "")
	if e.String() != "unix:///tmp/csi.sock" {
		t.Errorf("default %s", e)
	}
	if err := flags.Parse([]string{"-endpoint=tcp://:1"}); err != nil || e.String() != "tcp://:1" {
		t.Errorf("%s, %v", e, err)
	}
	if err := flags.Parse([]string{"-endpoint=x"}); err == nil || !strings.Contains(err.Error(), "invalid endpoint: x") {
		t.Errorf("error %v", err)
	}
}

func TestListen(t *testing.T) {
	leaveSocket := func(dir string) error {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "c.sock"), Net: "unix"})
		if err == nil {
			l.SetUnlinkOnClose(false)
			err = l.Close()
		}
		return err
	}
	writeFile := func(dir string) error { return os.WriteFile(filepath.Join(dir, "c.sock"), []byte("precious"), 0o600) }
	for _, tc := range []struct {
		name    string
		before  func(dir string) error
		wantErr string
	}{
		{"nothing there", func(string) error { return nil }, ""},
		{"a dead socket", leaveSocket, ""},
		{"a file", writeFile, "no socket"},
		{"a folder", func(dir string) error { return os.Mkdir(filepath.Join(dir, "c.sock"), 0o700) }, "no socket"},
		{"a link", func(dir string) error { return os.Symlink("/nowhere", filepath.Join(dir, "c.sock")) }, "no socket"},
		{"no folder", os.Remove, "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := socketDir(t)
			if err := tc.before(dir); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "c.sock")
			l, err := endpoint(t, "unix://"+path).Listen()
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) || !strings.Contains(err.Error(), path) {
					t.Fatalf("error %v, want %q", err, tc.wantErr)
				}
				checkPrecious(t, dir)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o700 {
				t.Errorf("%v, %v", info, err)
			}
			conn, err := net.Dial(l.Addr().Network(), l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// checkPrecious checks that whatever file there is was left alone.
func checkPrecious(t *testing.T, dir string) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, file := range files {
		if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
			t.Errorf("%s holds %q, %v", file, text, err)
		}
	}
}

// A newer process may have put its socket there: closing ours must not take its name away.
func TestCloseLeavesSuccessor(t *testing.T) {
	e := endpoint(t, "unix://"+filepath.Join(socketDir(t), "c.sock"))
	old, err := e.Listen()
	if err != nil {
		t.Fatal(err)
	}
	successor, err := e.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer successor.Close()
	old.Close()
	conn, err := net.Dial("unix", successor.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestListenOnLongPath(t *testing.T) {
	path := filepath.Join(socketDir(t), strings.Repeat("x", 100))
	if _, err := endpoint(t, "unix://"+path).Listen(); err == nil || !strings.Contains(err.Error(), "choose a shorter one") {
		t.Errorf("error %v", err)
	}
}

func TestListenOnTCP(t *testing.T) {
	l, err := endpoint(t, "tcp://127.0.0.1:0").Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = endpoint(t, "tcp://"+l.Addr().String()).Listen()
	if err == nil || !strings.Contains(err.Error(), "listening on tcp://"+l.Addr().String()) {
		t.Errorf("error %v", err)
	}
}
