//go:build integration && linux

package control

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peer tells which process serves the connection.
func peer(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("asking who holds the cluster: %w", err)
	}
	var credentials *unix.Ucred
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		credentials, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, fmt.Errorf("asking who holds the cluster: %w", err)
	}
	if optErr != nil {
		return 0, fmt.Errorf("asking who holds the cluster: %w", optErr)
	}
	return int(credentials.Pid), nil
}
