package front_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"keymount/internal/emulator/emulatortest"
	"keymount/internal/emulator/front"
)

func start(t *testing.T) *emulatortest.Emulator {
	return emulatortest.Start(t, emulatortest.DefaultSeed("myvault"))
}

func pool(t *testing.T, e *emulatortest.Emulator) *x509.CertPool {
	t.Helper()
	b, err := os.ReadFile(e.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "PRIVATE") {
		t.Error("the CA file holds a private key")
	}
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(b)
	return p
}

func TestProtocolsOfTransports(t *testing.T) {
	e := start(t)
	for tr, want := range map[*http.Transport]int{e.Transport(): 2, e.TransportHTTP1(): 1} {
		client := &http.Client{Transport: tr}
		resp, err := client.Get("https://myvault.vault.azure.net/secrets?api-version=7.4")
		if err != nil || resp.ProtoMajor != want || resp.StatusCode != 401 {
			t.Fatalf("HTTP/%d: %v", want, err)
		}
		resp.Body.Close()
		if _, err := client.Get("https://absent.vault.azure.net/"); err == nil || !strings.Contains(err.Error(), "no such host") {
			t.Errorf("a vault that is not there: %v", err)
		}
	}
}

func TestProxyReachesTheEmulatorOnly(t *testing.T) {
	e := start(t)
	proxy, err := url.Parse(e.ProxyURL)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: pool(t, e), MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	resp, err := client.Get("https://myvault.vault.azure.net/secrets?api-version=7.4")
	if err != nil || resp.StatusCode != 401 || resp.ProtoMajor != 2 {
		t.Fatalf("%v", err)
	}
	resp.Body.Close()
	for _, target := range []string{"https://example.com/", "https://myvault.vault.azure.net:8443/", "https://127.0.0.1/"} {
		if _, err := client.Get(target); err == nil || !strings.Contains(err.Error(), "keyvault-emulator refuses") {
			t.Errorf("%s: %v", target, err)
		}
	}
	resp, err = client.Get("http://myvault.vault.azure.net/secrets?api-version=7.4")
	if err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("plain HTTP: %v", err)
	}
	resp.Body.Close()
}

// A connection that was made for one vault cannot be used for another by its Host header.
func TestHostIsThatOfTheConnection(t *testing.T) {
	e := start(t)
	addr := e.Addr()
	conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "login.microsoftonline.com", RootCAs: pool(t, e), MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /secrets?api-version=7.4 HTTP/1.1\r\nHost: myvault.vault.azure.net\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		b, _ := io.ReadAll(resp.Body)
		t.Errorf("%d %s", resp.StatusCode, b)
	}
	if _, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "example.com", RootCAs: pool(t, e), MinVersion: tls.VersionTLS12}); err == nil {
		t.Error("there is a certificate for a host that is not the emulator's")
	}
}

// Bytes that a client sends behind its CONNECT are not read as a second request.
func TestNothingIsSmuggledThroughTheProxy(t *testing.T) {
	e := start(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(e.ProxyURL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "CONNECT myvault.vault.azure.net:443 HTTP/1.1\r\nHost: myvault.vault.azure.net:443\r\n\r\nGET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
	b, _ := io.ReadAll(conn) // the emulator closes it, with a reset or without
	if strings.Count(string(b), "HTTP/1.") > 1 || strings.Contains(string(b), "example.com") {
		t.Errorf("got %q", b)
	}
}

// At an address of its own it is found under the real names by whatever resolves them, without the proxy.
func TestListenAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	e := emulatortest.StartAt(t, emulatortest.DefaultSeed("myvault"), address)
	if e.Addr() != address {
		t.Fatalf("it listens at %s, not %s", e.Addr(), address)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(e.CertPEM()) {
		t.Fatal("CertPEM is no certificate")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://myvault.vault.azure.net/secrets?api-version=7.4")
	if err != nil || resp.StatusCode != 401 {
		t.Fatalf("%v", err)
	}
	resp.Body.Close()
	if _, err := front.StartAt(e.Server, address); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a second one at the same address: %v", err)
	}
}

func TestAddressesThatAreRefused(t *testing.T) {
	for address, want := range map[string]string{
		"": "not an IP address and a port", "10.200.0.1": "not an IP address and a port", "vault.example:443": "not an IP address and a port",
		"10.200.0.1:0": "has no port", "0.0.0.0:443": "every address", "[::]:443": "every address", "[::ffff:0.0.0.0]:443": "every address",
		"8.8.8.8:443": "not of a private network", "[2001:db8::1]:443": "not of a private network",
	} {
		if err := front.CheckAddress(address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", address, err, want)
		}
	}
	for _, address := range []string{"10.200.0.1:443", "127.0.0.1:8443", "[fd00::1]:443", "169.254.1.1:443"} {
		if err := front.CheckAddress(address); err != nil {
			t.Error(err)
		}
	}
}
