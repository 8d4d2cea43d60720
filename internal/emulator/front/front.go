// Package front puts an emulator on the network: certificates of an authority of its own, a TLS listener for all host names at once, and an HTTP
// proxy that leads clients there under the real names.
//
// Everything listens on the loopback interface, except TLS where an address of a private network is asked for. The authority's private key is never
// written anywhere. The package imports internal/emulator and nothing else of the module. A Front may be used from any number of goroutines.
package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"keymount/internal/emulator"
)

// A Front is an emulator on the network.
type Front struct {
	server    *emulator.Server
	authority *authority
	web       *http.Server
	proxy     *http.Server
	tlsAt     net.Listener
	proxyAt   net.Listener
	conns     *handedListener
	running   sync.WaitGroup
	stopOnce  sync.Once
}

// Start listens on two free ports of 127.0.0.1: TLS for every host name, and the proxy. Stop ends it.
func Start(server *emulator.Server) (*Front, error) { return start(server, "127.0.0.1:0") }

// StartAt is Start with an address for TLS, such as 10.200.0.1:443, which clients reach under the real host names by their DNS.
func StartAt(server *emulator.Server, address string) (*Front, error) {
	if err := CheckAddress(address); err != nil {
		return nil, err
	}
	return start(server, address)
}

// CheckAddress refuses what no client could be led to, and addresses at which the world could reach the emulator: it is made for tests, not to be attacked.
func CheckAddress(address string) error {
	at, err := netip.ParseAddrPort(address)
	ip := at.Addr().Unmap()
	switch {
	case err != nil:
		return fmt.Errorf("%q is not an IP address and a port: use one of this machine's that clients reach, as in 10.200.0.1:443", address)
	case at.Port() == 0:
		return fmt.Errorf("%q has no port: use 443, since clients of the real names connect there", address)
	case ip.IsUnspecified():
		return fmt.Errorf("%q is every address of this machine: name the one that clients reach, as in 10.200.0.1:443", address)
	case !ip.IsLoopback() && !ip.IsPrivate() && !ip.IsLinkLocalUnicast():
		return fmt.Errorf("%q is not of a private network: the emulator is for tests and must not be reached from elsewhere", address)
	}
	return nil
}

func start(server *emulator.Server, address string) (*Front, error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	f := &Front{server: server, authority: ca}
	if f.tlsAt, err = net.Listen("tcp", address); err != nil {
		return nil, fmt.Errorf("listening for TLS: %w%s", err, hint(err))
	}
	if f.proxyAt, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		f.tlsAt.Close()
		return nil, fmt.Errorf("listening for the proxy: %w", err)
	}
	f.conns = newHandedListener(f.tlsAt.Addr())
	quiet := log.New(discard{}, "", 0)
	f.web = &http.Server{Handler: server, TLSConfig: f.tlsConfig(), ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: quiet}
	f.proxy = &http.Server{Handler: http.HandlerFunc(f.serveProxy), ReadHeaderTimeout: 30 * time.Second, MaxHeaderBytes: 64 << 10, ErrorLog: quiet}
	f.serve(func() error { return f.web.ServeTLS(f.tlsAt, "", "") })
	f.serve(func() error { return f.web.ServeTLS(f.conns, "", "") })
	f.serve(func() error { return f.proxy.Serve(f.proxyAt) })
	return f, nil
}

func hint(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return " (ports below 1024 need root, or CAP_NET_BIND_SERVICE)"
	}
	return ""
}

// discard keeps handshake failures of clients that do not trust the authority off the terminal: the client says so itself.
type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func (f *Front) serve(run func() error) {
	f.running.Go(func() {
		_ = run() // returns when Stop closes the server
	})
}

func (f *Front) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			// In one spelling only, or a client could fill the cache with the others.
			name := strings.ToLower(strings.TrimSuffix(h.ServerName, "."))
			if !f.server.Serves(name) {
				return nil, fmt.Errorf("no vault, authority or issuer has the host name %q", name)
			}
			return f.authority.leaf(name)
		},
	}
}

// Stop closes all connections, requests in flight included.
func (f *Front) Stop() {
	f.stopOnce.Do(func() {
		f.proxy.Close()
		f.web.Close()
		f.conns.Close()
	})
	f.running.Wait()
}

// CertPEM is the authority's certificate.
func (f *Front) CertPEM() []byte { return f.authority.certPEM }

// ProxyURL is what HTTPS_PROXY is to be.
func (f *Front) ProxyURL() string { return "http://" + f.proxyAt.Addr().String() }

// Addr is where TLS is spoken for every host name.
func (f *Front) Addr() string { return f.tlsAt.Addr().String() }

// Transport returns a new transport that trusts the authority and finds the emulator under every name that it serves; other names do not
// resolve, as nothing would answer for a vault that is not there. It speaks HTTP/2 where http2 is true.
func (f *Front) Transport(http2 bool) *http.Transport {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(f.CertPEM())
	t := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:   http2,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			if !f.server.Serves(host) {
				return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", f.Addr())
		},
	}
	if !http2 {
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return t
}

// A handedListener is a net.Listener whose connections are handed to it.
type handedListener struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandedListener(addr net.Addr) *handedListener {
	return &handedListener{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

var errStopped = errors.New("the emulator has stopped")

func (l *handedListener) hand(c net.Conn) error {
	select {
	case l.conns <- c:
		return nil
	case <-l.done:
		return errStopped
	}
}

func (l *handedListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *handedListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *handedListener) Addr() net.Addr { return l.addr }
