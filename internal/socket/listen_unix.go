//go:build !windows

package socket

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
	// maxSocketPath is what Linux allows.
	maxSocketPath = 107
)

func absolute(path string) string { return filepath.Clean("/" + path) }

// ListenUnix makes the socket under its own name, with its mode. Unlike with a temporary name and a rename, kubelet, which
// watches its registration folder, sees nothing but the socket that it looks for. The process's umask, which all threads
// share, stays alone.
func ListenUnix(path string) (*UnixListener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listening on %s: the path of a socket has at most %d bytes: choose a shorter one", path, maxSocketPath)
	}
	switch left, err := socketAt(path); {
	case err != nil:
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	case left != nil:
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("removing an old socket: %w", err)
		}
	}
	config := net.ListenConfig{Control: restrict}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	socket := l.(*net.UnixListener)
	info, err := restricted(path)
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	socket.SetUnlinkOnClose(false) // it would unlink whatever has the name by then
	return &UnixListener{UnixListener: socket, path: path, info: info}, nil
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

// restrict has Linux make the socket with its mode in the first place. Other systems refuse that.
func restrict(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = unix.Fchmod(int(fd), socketMode) })
}

// restricted sets the mode where restrict could not, and returns what the socket can be told by.
func restricted(path string) (fs.FileInfo, error) {
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, err
	}
	return os.Lstat(path)
}

// A UnixListener removes its socket when it is closed, unless a successor has put its own there.
type UnixListener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	once sync.Once
}

func (l *UnixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// InPlace tells whether the socket's name still leads to it.
func (l *UnixListener) InPlace() bool {
	info, err := os.Lstat(l.path)
	return err == nil && os.SameFile(info, l.info)
}

func (l *UnixListener) Close() error {
	l.once.Do(func() {
		// Before the close: while the socket is open, its inode number cannot be another's.
		if l.InPlace() {
			os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}
