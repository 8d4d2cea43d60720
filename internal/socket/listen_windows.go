package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
)

// absolute leaves a path as it is: it starts with a drive.
func absolute(path string) string { return path }

// ListenUnix replaces a socket that a former process left. The access list of the folder protects it: Windows sockets have
// no mode of their own.
func ListenUnix(path string) (*UnixListener, error) {
	switch info, err := os.Lstat(path); {
	case err == nil && (info.Mode().IsRegular() || info.IsDir()):
		return nil, fmt.Errorf("listening on %s: the path is taken by something that is no socket: move it away", path)
	case err == nil:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing the old socket %s: %w", path, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	return &UnixListener{Listener: l, path: path}, nil
}

// A UnixListener is a socket whose file has no identity here that could be compared.
type UnixListener struct {
	net.Listener
	path string
}

// InPlace tells whether there is anything at the socket's name.
func (l *UnixListener) InPlace() bool {
	_, err := os.Lstat(l.path)
	return err == nil
}
