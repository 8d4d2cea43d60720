//go:build integration && linux

package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"
)

// Forward takes connections and carries their bytes to target, until ctx ends. A listener of one network namespace may be
// served in another: this is how the outer machine reaches the API server.
func Forward(ctx context.Context, listener net.Listener, target string, log *slog.Logger) error {
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("taking connections: %w", err)
		}
		if err != nil { // out of file descriptors, most likely
			log.Warn("taking a connection", "error", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go carry(ctx, conn.(*net.TCPConn), target, log)
	}
}

func carry(ctx context.Context, client *net.TCPConn, target string, log *slog.Logger) {
	defer client.Close()
	dialer := net.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		log.Warn("forwarding a connection", "error", err)
		return
	}
	server := conn.(*net.TCPConn)
	defer server.Close()
	done := make(chan struct{}, 2)
	for _, way := range [][2]*net.TCPConn{{server, client}, {client, server}} {
		go func() {
			_, err := io.Copy(way[0], way[1])
			if err != nil {
				way[0].Close() // a broken connection breaks the other
			} else {
				_ = way[0].CloseWrite() // one side may end before the other
			}
			done <- struct{}{}
		}()
	}
	<-done
	<-done
}
