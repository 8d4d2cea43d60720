//go:build !windows

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	socketMode = 0o700
	// maxSocketPath is one byte less than Linux allows: the socket is made under a name with a dot in front.
	maxSocketPath = 106
)

func absolute(path string) string { return filepath.Clean("/" + path) }

// listenUnix makes the socket under a hidden name, which kubelet passes over in its registration folder, and moves it to
// its own: kubelet sees one new socket, which answers and has its mode. The process's umask, which all threads share,
// stays alone.
func listenUnix(path string) (*unixListener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listening on %s: the path of a socket has at most %d bytes: choose a shorter one", path, maxSocketPath)
	}
	if _, err := socketAt(path); err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	hidden := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	switch left, err := socketAt(hidden); { // by a process that was killed
	case err != nil:
		return nil, fmt.Errorf("listening on %s: %s: %w", path, hidden, err)
	case left != nil:
		if err := os.Remove(hidden); err != nil {
			return nil, fmt.Errorf("removing an old socket: %w", err)
		}
	}
	config := net.ListenConfig{Control: restrict}
	l, err := config.Listen(context.Background(), "unix", hidden)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	socket := l.(*net.UnixListener)
	socket.SetUnlinkOnClose(false) // it would unlink the name that the socket was made under
	info, err := adopt(hidden, path)
	if err != nil {
		socket.Close()
		os.Remove(hidden)
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	return &unixListener{UnixListener: socket, path: path, info: info}, nil
}

// socketAt returns the socket at path, nil if nothing is there, and an error if it is anything else.
func socketAt(path string) (fs.FileInfo, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, errors.New("the path is taken by something that is no socket: move it away")
	default:
		return info, nil
	}
}

// restrict has Linux make the socket with its mode in the first place. Other systems refuse: there adopt sets it.
func restrict(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = unix.Fchmod(int(fd), socketMode) })
}

func adopt(hidden, path string) (fs.FileInfo, error) {
	if err := os.Chmod(hidden, socketMode); err != nil {
		return nil, err
	}
	info, err := os.Lstat(hidden)
	if err != nil {
		return nil, err
	}
	return info, os.Rename(hidden, path)
}

// A unixListener removes its socket when it is closed, unless a successor has put its own there.
type unixListener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	once sync.Once
}

func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// inPlace tells whether the socket's name still leads to it.
func (l *unixListener) inPlace() bool {
	info, err := os.Lstat(l.path)
	return err == nil && os.SameFile(info, l.info)
}

func (l *unixListener) Close() error {
	l.once.Do(func() {
		// Before the close: while the socket is open, its inode number cannot be another's.
		if l.inPlace() {
			os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}
