//go:build !windows

package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// absolute makes a relative path of an endpoint one below the root: unix://tmp/x.sock means /tmp/x.sock, as upstream.
func absolute(path string) string { return filepath.Clean("/" + path) }

// listenUnix makes the socket in a folder that only this process's user can enter, sets its mode, and then moves it to its
// name: it is never there with a wider mode, and the process's umask, which all threads share, stays alone.
func listenUnix(path string) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case err == nil && info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("listening on %s: the path is taken by something that is no socket", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	private, err := os.MkdirTemp(filepath.Dir(path), ".s") // 0700; short, since the path of a socket is at most 107 bytes
	if err != nil {
		return nil, fmt.Errorf("making a folder for the socket %s: %w", path, err)
	}
	defer os.RemoveAll(private)
	unnamed := filepath.Join(private, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: unnamed, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // it would unlink the name that the socket was made under
	info, err := adopt(unnamed, path)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	return &unixListener{UnixListener: l, path: path, info: info}, nil
}

func adopt(unnamed, path string) (fs.FileInfo, error) {
	if err := os.Chmod(unnamed, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Lstat(unnamed)
	if err != nil {
		return nil, err
	}
	return info, os.Rename(unnamed, path)
}

// A unixListener removes its socket when it is closed, unless a successor has put its own there.
type unixListener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	once sync.Once
}

func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *unixListener) Close() error {
	l.once.Do(func() {
		// Before the close: while the socket is open, its inode number cannot be another's.
		if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.info) {
			os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}
