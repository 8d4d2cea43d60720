package emulator

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// maxBody bounds the body of a request, in bytes. The largest thing that the service takes is a certificate of some tens of KiB.
const maxBody = 1 << 20

// Options configure a Server; the zero value is good.
type Options struct {
	// Now is the clock of everything in the answers; nil is time.Now. Latency is always real time.
	Now func() time.Time
	// SigningKey signs access tokens; nil makes one at first use, which takes some tenths of a second.
	SigningKey *rsa.PrivateKey
	// TokenLifetime is how long access tokens are good for; zero is 3599 s, as the service.
	TokenLifetime time.Duration
}

// A Server is the emulator: an http.Handler that answers by the Host header, and the methods that fill, disturb and
// watch it. It holds no goroutine and needs no closing.
type Server struct {
	now      func() time.Time
	key      func() *rsa.PrivateKey
	lifetime time.Duration

	mu      sync.RWMutex // guards what follows, vaults' content included
	clouds  []*Cloud
	vaults  map[string]*vault // by host
	tenants map[string]*tenant
	issuers map[string]*Issuer // by issuer URL
	polls   polls

	journal journal
	faults  faultBox
}

// New makes an emulator of the public clouds with nothing in it; Load fills it.
func New(opt Options) *Server {
	s := &Server{now: opt.Now, lifetime: opt.TokenLifetime,
		vaults: map[string]*vault{}, tenants: map[string]*tenant{}, issuers: map[string]*Issuer{}}
	if s.now == nil {
		s.now = time.Now
	}
	if s.lifetime == 0 {
		s.lifetime = 3599 * time.Second
	}
	s.key = sync.OnceValue(func() *rsa.PrivateKey {
		if opt.SigningKey != nil {
			return opt.SigningKey
		}
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err) // crypto/rand does not fail, and the size is a constant
		}
		return key
	})
	for _, c := range clouds() {
		c.fill()
		s.clouds = append(s.clouds, &c)
	}
	s.journal.init()
	s.faults.init()
	return s
}

// A call is one request on its way through the emulator.
type call struct {
	s    *Server
	r    *http.Request
	host string
	site site
	// kind is what the request is counted as.
	kind  string
	route route
	body  []byte
	api   string
	who   identity
	entry *Entry
}

// ServeHTTP answers by the Host header. Hosts that are not the emulator's get 404 with a text that says so.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{s: s, r: r, host: hostName(r.Host)}
	s.mu.RLock()
	found, ok := s.site(c.host)
	s.mu.RUnlock()
	switch {
	case !ok:
		s.write(w, c, textResponse(http.StatusNotFound, "keyvault-emulator: no vault, authority or issuer has the host name "+strconv.Quote(c.host)))
		return
	case r.TLS != nil && r.TLS.ServerName != "" && hostName(r.TLS.ServerName) != c.host:
		// One connection is for one host: otherwise a client could reach a vault over a connection that was checked for another.
		s.write(w, c, textResponse(http.StatusMisdirectedRequest, "keyvault-emulator: the TLS server name and the Host header differ"))
		return
	}
	c.site = found
	c.classify()
	c.entry = s.journal.begin(c, s.now())
	resp := s.respond(w, c)
	if resp == nil {
		s.journal.end(c.entry, 0)
		panic(http.ErrAbortHandler) // cuts the connection, without a trace in the log
	}
	s.journal.end(c.entry, resp.status)
	s.write(w, c, resp)
}

// respond returns nil when the connection is to be cut.
func (s *Server) respond(w http.ResponseWriter, c *call) *response {
	var err error
	c.body, err = io.ReadAll(http.MaxBytesReader(w, c.r.Body, maxBody))
	if err != nil {
		if tooBig := (*http.MaxBytesError)(nil); errors.As(err, &tooBig) {
			return errorResponse(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "", "The request body is larger than 1 MiB.")
		}
		return errorResponse(http.StatusBadRequest, "BadParameter", "", "The request body could not be read.")
	}
	ctx := c.r.Context()
	if !sleep(ctx, s.faults.latency(c.group())) {
		return nil
	}
	f := s.faults.take(c)
	if f != nil {
		if resp, done := f.before(c); done {
			return resp
		}
	}
	resp := c.answer()
	if f != nil {
		resp = f.after(c, resp)
	}
	return resp
}

func (c *call) answer() *response {
	switch {
	case c.site.vault != nil:
		return c.answerVault()
	case c.site.authority != nil:
		return c.answerAuthority()
	default:
		return c.site.issuer.answer(c.r)
	}
}

// write sends an answer with the headers that every answer of its site has.
func (s *Server) write(w http.ResponseWriter, c *call, resp *response) {
	h := w.Header()
	switch {
	case c.site.vault != nil:
		s.mu.RLock()
		c.vaultHeaders(h)
		s.mu.RUnlock()
	case c.site.authority != nil:
		c.authorityHeaders(h)
	}
	for k, v := range resp.header {
		h[k] = v
	}
	h.Set("Content-Length", strconv.Itoa(len(resp.body)))
	if resp.status == http.StatusNoContent {
		h.Del("Content-Length")
	}
	w.WriteHeader(resp.status)
	if resp.chunk == 0 {
		_, _ = io.Copy(w, bytes.NewReader(resp.body)) // a client that went away is not the emulator's concern
		return
	}
	writeSlowly(c.r.Context(), w, resp)
}

// writeSlowly sends chunk bytes at a time with a pause after each.
func writeSlowly(ctx context.Context, w http.ResponseWriter, resp *response) {
	flush := http.NewResponseController(w)
	for rest := resp.body; len(rest) > 0; {
		n := min(resp.chunk, len(rest))
		if _, err := w.Write(rest[:n]); err != nil {
			return
		}
		_ = flush.Flush()
		rest = rest[n:]
		if !sleep(ctx, resp.pause) {
			return
		}
	}
}

// sleep reports whether the time passed before the context was done.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
