//go:build integration && linux

package dns

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const hosts = `# a comment
10.200.0.1 login.example.com Two.example.com  # two names
10.200.0.1 *.vault.example.net
10.200.0.2 *.deep.vault.example.net
10.200.0.3 own.vault.example.net
10.200.0.4 own.vault.example.net
fd00::1    six.example.com
`

// serve starts a server with that hosts file, and returns a connection to it and the file's path.
func serve(t *testing.T, text string) (net.Conn, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hosts")
	write(t, path, text)
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	fixed := map[string]netip.Addr{"kubernetes.default.svc": netip.MustParseAddr("10.96.0.1")}
	go func() { served <- New(path, fixed, slog.New(slog.NewTextHandler(io.Discard, nil))).Serve(ctx, packets) }()
	conn, err := net.Dial("udp4", packets.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil { // an answer that never comes fails the test
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("a server that was told to stop returned %v", err)
		}
	})
	return conn, path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// ask sends a question and reads the answer.
func ask(t *testing.T, conn net.Conn, name string, kind dnsmessage.Type) *dnsmessage.Message {
	t.Helper()
	question := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	packed, err := question.Pack()
	if err != nil {
		t.Fatal(err)
	}
	answer := exchange(t, conn, packed)
	if answer.ID != 4711 || !answer.Response || !answer.RecursionDesired || !answer.RecursionAvailable {
		t.Errorf("%s: the header is %+v", name, answer.Header)
	}
	if !slices.Equal(answer.Questions, question.Questions) {
		t.Errorf("%s: the question came back as %v", name, answer.Questions)
	}
	return answer
}

func exchange(t *testing.T, conn net.Conn, packed []byte) *dnsmessage.Message {
	t.Helper()
	if _, err := conn.Write(packed); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 4096)
	n, err := conn.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	answer := &dnsmessage.Message{}
	if err := answer.Unpack(buffer[:n]); err != nil {
		t.Fatal(err)
	}
	return answer
}

// addresses are those of the answer.
func addresses(t *testing.T, m *dnsmessage.Message) []string {
	t.Helper()
	var all []string
	for _, a := range m.Answers {
		body, ok := a.Body.(*dnsmessage.AResource)
		if !ok || a.Header.Type != dnsmessage.TypeA || a.Header.TTL > 1 {
			t.Fatalf("the answer has a record %v", a)
		}
		all = append(all, netip.AddrFrom4(body.A).String())
	}
	return all
}

func TestAnswers(t *testing.T) {
	conn, _ := serve(t, hosts)
	for _, tc := range []struct {
		name string
		kind dnsmessage.Type
		code dnsmessage.RCode
		want []string
	}{
		{"login.example.com.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, []string{"10.200.0.1"}},
		{"LOGIN.example.COM.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, []string{"10.200.0.1"}},
		{"two.example.com.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, []string{"10.200.0.1"}},
		{"kv.vault.example.net.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, []string{"10.200.0.1"}},
		{"a.b.vault.example.net.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, []string{"10.200.0.1"}},
		{"a.deep.vault.example.net.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, []string{"10.200.0.2"}},
		{"own.vault.example.net.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, []string{"10.200.0.3", "10.200.0.4"}},
		{"kubernetes.default.svc.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, []string{"10.96.0.1"}},
		{"login.example.com.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, nil},
		{"login.example.com.", dnsmessage.TypeTXT, dnsmessage.RCodeSuccess, nil},
		{"six.example.com.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, nil},
		{"vault.example.net.", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		{"example.com.", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		{"login.example.com.default.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		{".", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
	} {
		answer := ask(t, conn, tc.name, tc.kind)
		if got := addresses(t, answer); answer.RCode != tc.code || !slices.Equal(got, tc.want) {
			t.Errorf("%s %v: %v %v, want %v %v", tc.name, tc.kind, answer.RCode, got, tc.code, tc.want)
		}
	}
}

func TestAnswersFollowTheFile(t *testing.T) {
	conn, path := serve(t, "10.0.0.1 a.example.com\n")
	write(t, path, "10.0.0.2 a.example.com\n") // as long, and within the clock's grain
	if got := addresses(t, ask(t, conn, "a.example.com.", dnsmessage.TypeA)); !slices.Equal(got, []string{"10.0.0.2"}) {
		t.Errorf("after the change: %v", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if answer := ask(t, conn, "a.example.com.", dnsmessage.TypeA); answer.RCode != dnsmessage.RCodeNameError {
		t.Errorf("without a file: %v", answer.RCode)
	}
	write(t, path, "nonsense\n")
	if answer := ask(t, conn, "a.example.com.", dnsmessage.TypeA); answer.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("with a wrong file: %v", answer.RCode)
	}
}

func TestNoise(t *testing.T) {
	conn, _ := serve(t, hosts)
	status := dnsmessage.Message{Header: dnsmessage.Header{ID: 1, OpCode: 2}, Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName("login.example.com."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	packed, err := status.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if answer := exchange(t, conn, packed); answer.RCode != dnsmessage.RCodeNotImplemented {
		t.Errorf("another operation: %v", answer.RCode)
	}
	empty, err := (&dnsmessage.Message{Header: dnsmessage.Header{ID: 2}}).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if answer := exchange(t, conn, empty); answer.RCode != dnsmessage.RCodeFormatError {
		t.Errorf("no question: %v", answer.RCode)
	}
	// What is no question gets no answer: the next one read is that of the next question.
	response, err := (&dnsmessage.Message{Header: dnsmessage.Header{ID: 3, Response: true}}).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, noise := range [][]byte{{}, {1, 2, 3}, response} {
		if _, err := conn.Write(noise); err != nil {
			t.Fatal(err)
		}
	}
	ask(t, conn, "login.example.com.", dnsmessage.TypeA)
}

func TestServeEndsWhenItsSocketDoes(t *testing.T) {
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	packets.Close()
	server := New("/nonexistent", nil, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err := server.Serve(t.Context(), packets); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestHostsFileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1 a\n10.0.0.256 b\n": "line 2",
		"10.0.0.1\n":                 "no name follows",
		"10.0.0.1 a.*.com\n":         "wildcard",
		"10.0.0.1 *\n":               "wildcard",
		"name 10.0.0.1\n":            "line 1",
	} {
		if _, err := parseHosts(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := readHosts(t.TempDir()); err == nil {
		t.Error("a folder was read as a hosts file")
	}
}
