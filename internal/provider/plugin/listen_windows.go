package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
)

// absolute leaves a path as it is: it starts with a drive.
func absolute(path string) string { return path }

// listenUnix replaces a socket that a former process left. The access list of the folder protects it: Windows sockets have
// no mode of their own.
func listenUnix(path string) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case err == nil && (info.Mode().IsRegular() || info.IsDir()):
		return nil, fmt.Errorf("listening on %s: the path is taken by something that is no socket", path)
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
	return l, nil
}
