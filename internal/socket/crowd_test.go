package socket_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"keymount/internal/socket"
)

// dial opens a connection and says so many bytes of a request.
func dial(t *testing.T, s *httptest.Server, request string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return conn
}

// wantClosed waits until the server has closed a connection; it hangs, and the test with it, if the server does not.
func wantClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, want the end", n)
	} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		t.Fatal("the connection is still open")
	}
}

func TestBoundKeepsTheNewestConnections(t *testing.T) {
	held := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			select {
			case <-held:
			case <-r.Context().Done():
			}
		}
		io.WriteString(w, "ok")
	}))
	socket.Bound(s.Config)
	s.Start()
	defer s.Close()
	defer close(held)

	for name, request := range map[string]string{
		"nothing is asked": "", "half a request": "GET /", "never answered": "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n",
		"answered, and kept": "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			crowd := make([]net.Conn, 400)
			for i := range crowd {
				crowd[i] = dial(t, s, request)
				if name == "answered, and kept" {
					resp, err := http.ReadResponse(bufio.NewReaderSize(crowd[i], 4096), nil)
					if err != nil {
						t.Fatal(err)
					}
					io.Copy(io.Discard, resp.Body)
				}
			}
			for _, conn := range crowd[:100] {
				wantClosed(t, conn)
			}
			// Whoever asks now is answered all the same.
			conn := dial(t, s, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("got %v, %v", resp, err)
			}
		})
	}
}
