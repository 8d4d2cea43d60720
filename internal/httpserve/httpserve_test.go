package httpserve_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"keymount/internal/httpserve"
)

// serve serves handler until stop is called, which returns what came of it.
func serve(t *testing.T, cfg httpserve.Config) (addr string, stop func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log, cfg.AnswerWithin = slog.New(slog.DiscardHandler), time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- httpserve.Serve(ctx, l, cfg) }()
	t.Cleanup(cancel)
	return l.Addr().String(), func() error {
		cancel()
		return <-ended
	}
}

func get(t *testing.T, url string) (status int, body string, resp *http.Response) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp
}

func TestAnAnswerUnderWayIsFinished(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	addr, stop := serve(t, httpserve.Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		io.WriteString(w, "late")
	})})
	ended := make(chan error, 1)
	go func() {
		<-asked
		go func() { ended <- stop() }()
		close(release)
	}()
	if status, body, _ := get(t, "http://"+addr); status != http.StatusOK || body != "late" {
		t.Errorf("%d %q", status, body)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestALostListenerIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	err = httpserve.Serve(t.Context(), l, httpserve.Config{Handler: http.NotFoundHandler(), Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

// Callers that send half a request and no more, and ones with too much of it, keep nobody else from being served.
func TestHostileCallers(t *testing.T) {
	addr, _ := serve(t, httpserve.Config{OneRequest: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "ok")
	})})
	crowd := make([]net.Conn, 400)
	for i := range crowd {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
		crowd[i] = conn
	}
	if status, body, resp := get(t, "http://"+addr); status != http.StatusOK || body != "ok" || !resp.Close {
		t.Errorf("%d %q, closed %v", status, body, resp.Close)
	}
	// Who came later was let in, so the oldest have been closed by now, long before their time to send a request is over.
	crowd[0].SetReadDeadline(time.Now().Add(2 * time.Second))
	if _, err := crowd[0].Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("any number of connections may stay open")
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Big: %s\r\n\r\n", strings.Repeat("x", 32<<10))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestProfiles(t *testing.T) {
	addr, _ := serve(t, httpserve.Config{Handler: httpserve.Profiles()})
	for path, want := range map[string]string{
		"/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "goroutine profile", "/debug/pprof/cmdline": "test",
	} {
		if status, body, _ := get(t, "http://"+addr+path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.100q", path, status, body)
		}
	}
}
