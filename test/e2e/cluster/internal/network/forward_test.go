//go:build integration && linux

package network

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener.(*net.TCPListener)
}

// forward starts a forwarder to target, and returns its address.
func forward(t *testing.T, target string) string {
	t.Helper()
	listener := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Forward(ctx, listener, target, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("a forwarder that was told to stop returned %v", err)
		}
	})
	return listener.Addr().String()
}

func connect(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil { // what never comes fails the test
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// Each side may end its half while the other still sends.
func TestForwardCarriesBothWaysAndEachEnd(t *testing.T) {
	server := listen(t)
	client := connect(t, forward(t, server.Addr().String()))
	if _, err := client.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	accepted, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if got, err := io.ReadAll(accepted); err != nil || string(got) != "question" {
		t.Errorf("the server got %q, %v", got, err)
	}
	if _, err := accepted.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	accepted.Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != "answer" {
		t.Errorf("the client got %q, %v", got, err)
	}
}

func TestForwardClosesWhatLeadsNowhere(t *testing.T) {
	gone := listen(t)
	gone.Close()
	client := connect(t, forward(t, gone.Addr().String()))
	if got, err := io.ReadAll(client); len(got) > 0 {
		t.Errorf("got %q, %v", got, err)
	}
}
