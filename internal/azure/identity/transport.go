package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// NewTransport returns the transport for everything that a process asks of Azure. Make one and share it: connections are
// kept in it. Proxies and CA files are taken from the environment (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE).
func NewTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        150 * time.Second, // longer than the usual interval of rotation, so that it finds warm connections
		MaxResponseHeaderBytes: 64 << 10,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
		OnProxyConnectResponse: proxyAnswer,
	}
}

// A ProxyRefusal is a proxy's answer to CONNECT that is no success (RFC 9110 9.3.6): the request has not reached its host.
// Many proxies say so of a host whose name has no address.
type ProxyRefusal struct {
	// Host is the host and port that was asked for, Status the proxy's status line.
	Host, Status string
	Code         int
}

func (e *ProxyRefusal) Error() string {
	return "the proxy does not connect to " + e.Host + ": " + e.Status
}

// proxyAnswer gives a refusal a type; without it, it is a text.
func proxyAnswer(_ context.Context, _ *url.URL, asked *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return &ProxyRefusal{Host: asked.Host, Status: Tidy(answer.Status), Code: answer.StatusCode}
}

// MaxAnswer bounds the body of every answer, in bytes. The largest that Key Vault and Entra ID give are some tens of KiB.
const MaxAnswer = 1 << 20

// A Transporter sends requests of the SDK's pipelines: over TLS only, redirects not followed (the SDK would send secrets
// along), and answers bounded by MaxAnswer.
type Transporter struct {
	RoundTripper http.RoundTripper
	// AllowHTTP lets plain requests pass, which the metadata services of virtual machines need.
	AllowHTTP bool
}

// Do implements policy.Transporter.
func (t Transporter) Do(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !t.AllowHTTP {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, noRetry{errors.New("refusing to send a request that is not https")}
	}
	resp, err := t.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: MaxAnswer}
	return resp, nil
}

// ErrAnswerTooLarge is returned for answers longer than MaxAnswer.
var ErrAnswerTooLarge error = noRetry{errors.New("the answer is larger than 1 MiB")}

// noRetry marks errors that the SDK's retry policy passes on at once.
type noRetry struct{ error }

func (noRetry) NonRetriable() {}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if len(p) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if n > b.left {
		return b.left, ErrAnswerTooLarge
	}
	b.left -= n
	return n, err
}
