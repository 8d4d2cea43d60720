package identity

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	discoveryPath = "/.well-known/openid-configuration"
	discoveryLife = time.Hour
	maxDiscovery  = 64 // documents; one per authority and tenant
)

// discovery is a transport that keeps OpenID discovery documents (OpenID Connect Discovery 1.0, 4), which are the same for
// every identity of a tenant and hold nothing secret. All else passes through.
type discovery struct {
	next http.RoundTripper
	now  func() time.Time

	mu   sync.Mutex
	docs map[string]*document // by address without query
}

// A document is the answer for one address, or the request for it that is going on.
type document struct {
	done    chan struct{} // closed when body is set, or the request failed
	body    []byte        // nil if it failed
	header  http.Header
	expires time.Time
}

func newDiscovery(next http.RoundTripper, now func() time.Time) *discovery {
	if now == nil {
		now = time.Now
	}
	return &discovery{next: next, now: now, docs: map[string]*document{}}
}

// RoundTrip implements http.RoundTripper.
func (d *discovery) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet || !strings.HasSuffix(req.URL.Path, discoveryPath) {
		return d.next.RoundTrip(req)
	}
	address := req.URL.Scheme + "://" + req.URL.Host + req.URL.EscapedPath()
	for {
		doc, mine := d.claim(address)
		if mine {
			return d.fetch(req, address, doc)
		}
		select {
		case <-doc.done:
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
		if doc.body != nil {
			return doc.answer(req), nil
		}
		// The other request failed, which may have been its own caller's fault: ask for oneself.
	}
}

// claim returns the document for address, and whether the caller is the one to fetch it.
func (d *discovery) claim(address string) (doc *document, mine bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if doc, ok := d.docs[address]; ok && (doc.expires.IsZero() || d.now().Before(doc.expires)) {
		return doc, false
	}
	if len(d.docs) >= maxDiscovery {
		for other, doc := range d.docs {
			if !doc.expires.IsZero() {
				delete(d.docs, other)
				break
			}
		}
	}
	doc = &document{done: make(chan struct{})}
	d.docs[address] = doc
	return doc, true
}

func (d *discovery) fetch(req *http.Request, address string, doc *document) (*http.Response, error) {
	var body []byte
	var header http.Header // nil if the document is not to be kept
	defer func() {         // also when something below panics: those who wait would wait for ever, and all who come later
		d.mu.Lock()
		if header != nil {
			doc.body, doc.header, doc.expires = body, header, d.now().Add(discoveryLife)
		} else if d.docs[address] == doc {
			delete(d.docs, address)
		}
		d.mu.Unlock()
		close(doc.done)
	}()
	resp, err := d.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err = io.ReadAll(&boundedBody{ReadCloser: resp.Body, left: MaxAnswer})
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK && usable(body) {
		header = resp.Header.Clone()
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// usable says whether a document is worth keeping; a captive portal's page is not.
func usable(body []byte) bool {
	var doc struct {
		Token string `json:"token_endpoint"`
	}
	return json.Unmarshal(body, &doc) == nil && strings.HasPrefix(doc.Token, "https://")
}

func (doc *document) answer(req *http.Request) *http.Response {
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: doc.header.Clone(), Body: io.NopCloser(bytes.NewReader(doc.body)),
		ContentLength: int64(len(doc.body)), Request: req,
	}
}
