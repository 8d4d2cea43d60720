package token_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"keymount/internal/provider"
	"keymount/internal/token"
)

const (
	driverName = "secrets-store.csi.k8s.io"
	audience   = "api://AzureADTokenExchange"
	issuer     = "https://kubernetes.default.svc"
	epoch      = 1_800_000_000
)

var pod = provider.Pod{Namespace: "ns", Name: "p", UID: "uid-1", ServiceAccount: "sa"}

// A rig is a Prover and its API server, which has one CSIDriver object and one key set.
type rig struct {
	*token.Prover
	t       *testing.T
	logs    *logBuffer
	seconds atomic.Int64

	mu      sync.Mutex
	counts  map[string]int
	driver  map[string]any // nil: there is none
	changed chan struct{}
	keys    []map[string]any
	refuse  map[string]int // status by what is asked: get, watch, list, jwks
	hold    chan struct{}  // where set, jwks and get wait for it
	raw     []byte         // the key set, where it is not keys
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// requesting is a CSIDriver object that requests tokens for audiences.
func requesting(audiences ...string) map[string]any {
	var requests []any
	for _, a := range audiences {
		requests = append(requests, map[string]any{"audience": a})
	}
	return map[string]any{"kind": "CSIDriver", "apiVersion": "storage.k8s.io/v1",
		"metadata": map[string]any{"name": driverName, "resourceVersion": "10"}, "spec": map[string]any{"tokenRequests": requests}}
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, logs: &logBuffer{}, counts: map[string]int{}, changed: make(chan struct{}), refuse: map[string]int{}}
	server := httptest.NewServer(r)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	p, err := token.New(token.Config{API: &rest.Config{Host: server.URL, QPS: -1}, DriverName: driverName,
		Log: slog.New(slog.NewTextHandler(r.logs, nil)), FirstRetry: time.Millisecond, LastRetry: 2 * time.Millisecond,
		Now: func() time.Time { return time.Unix(epoch+r.seconds.Load(), 0) }})
	if err != nil {
		t.Fatal(err)
	}
	r.Prover = p
	return r
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run returned %v", err)
		}
	})
}

func (r *rig) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *rig) count(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[what]
}

func (r *rig) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	const drivers = "/apis/storage.k8s.io/v1/csidrivers"
	what := ""
	switch {
	case req.URL.Path == drivers+"/"+driverName:
		what = "get"
	case req.URL.Path == drivers && req.URL.Query().Get("fieldSelector") != "metadata.name="+driverName:
		r.t.Errorf("asked for more than upstream's rights allow: %s", req.URL)
	case req.URL.Path == drivers && req.URL.Query().Get("watch") != "":
		what = "watch"
	case req.URL.Path == drivers:
		what = "list"
	case req.URL.Path == "/openid/v1/jwks":
		what = "jwks"
	}
	r.mu.Lock()
	r.counts[what]++
	refuse, hold := r.refuse[what], r.hold
	r.mu.Unlock()
	if hold != nil && (what == "get" || what == "jwks") {
		<-hold
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case refuse != 0:
		r.status(w, refuse)
	case what == "watch":
		r.watch(w, req)
	case what == "get":
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.driver == nil {
			r.status(w, 404)
			return
		}
		json.NewEncoder(w).Encode(r.driver)
	case what == "jwks":
		r.mu.Lock()
		defer r.mu.Unlock()
		w.Header().Set("Content-Type", "application/jwk-set+json")
		if r.raw != nil {
			w.Write(r.raw)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"keys": r.keys})
	default:
		r.status(w, 404)
	}
}

func (r *rig) status(w http.ResponseWriter, code int) {
	reason := map[int]string{403: "Forbidden", 404: "NotFound", 503: "ServiceUnavailable"}[code]
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
		"reason": reason, "message": "refused by the test"})
}

// watch tells the driver whenever it changed, until the request ends or is to be refused.
func (r *rig) watch(w http.ResponseWriter, req *http.Request) {
	enc := json.NewEncoder(w)
	rv := 10
	object := func() map[string]any {
		o := maps.Clone(r.driver)
		o["metadata"] = map[string]any{"name": driverName, "resourceVersion": fmt.Sprint(rv)}
		return o
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	there := r.driver != nil
	if req.URL.Query().Get("sendInitialEvents") == "true" {
		if there {
			enc.Encode(map[string]any{"type": "ADDED", "object": object()})
		}
		enc.Encode(map[string]any{"type": "BOOKMARK", "object": map[string]any{"kind": "CSIDriver", "apiVersion": "storage.k8s.io/v1",
			"metadata": map[string]any{"resourceVersion": "10", "annotations": map[string]any{"k8s.io/initial-events-end": "true"}}}})
	}
	for req.Context().Err() == nil && r.refuse["watch"] == 0 {
		changed := r.changed
		r.mu.Unlock()
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-req.Context().Done():
		}
		r.mu.Lock()
		rv++
		switch now := r.driver != nil; {
		case now:
			enc.Encode(map[string]any{"type": "MODIFIED", "object": object()})
			there = true
		case there:
			enc.Encode(map[string]any{"type": "DELETED", "object": requesting()})
			there = false
		}
	}
}

// prove proves one token for one audience and returns what came out for it.
func (r *rig) prove(audience, value string, from token.Origin) provider.Token {
	r.t.Helper()
	got, err := r.Prove(context.Background(), pod, wire(audience, value), from)
	if err != nil || len(got) != 1 {
		r.t.Fatalf("got %d tokens, %v", len(got), err)
	}
	if got[audience].Value.Reveal() != value {
		r.t.Fatal("another token came back")
	}
	return got[audience]
}

func (r *rig) want(audience, value string, from token.Origin, want provider.Proof) {
	r.t.Helper()
	if got := r.prove(audience, value, from).Proof; got != want {
		r.t.Errorf("proof is %v, want %v", got, want)
	}
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

func wire(audience, value string) string {
	out, _ := json.Marshal(map[string]any{audience: map[string]any{"token": value,
		"expirationTimestamp": time.Unix(epoch+3600, 0).UTC().Format(time.RFC3339)}})
	return string(out)
}

// good are the claims of a token that is right.
func good() map[string]any {
	return map[string]any{"iss": issuer, "sub": "system:serviceaccount:ns:sa", "aud": []any{audience}, "exp": epoch + 3600, "iat": epoch,
		"kubernetes.io": map[string]any{"namespace": "ns", "pod": map[string]any{"name": "p", "uid": "uid-1"},
			"serviceaccount": map[string]any{"name": "sa", "uid": "sa-uid"}}}
}

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func encode(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b64(data)
}

// A signer is a key of the API server, or of somebody else.
type signer struct {
	kid, alg string
	key      crypto.Signer
}

var (
	rsaKey   = mustKey(rsa.GenerateKey(rand.Reader, 2048))
	otherKey = mustKey(rsa.GenerateKey(rand.Reader, 2048))
	shortKey = mustKey(rsa.GenerateKey(rand.Reader, 1024))
	p256Key  = mustKey(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	p384Key  = mustKey(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	p521Key  = mustKey(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
)

func mustKey[K crypto.Signer](key K, err error) K {
	if err != nil {
		panic(err)
	}
	return key
}

func (s signer) hash() crypto.Hash {
	return map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[s.alg[2:]]
}

// sign makes a token with a header of its own; nil means the usual one.
func (s signer) sign(claims any, header map[string]any) string {
	if header == nil {
		header = map[string]any{"alg": s.alg, "kid": s.kid}
	}
	signed := encode(header) + "." + encode(claims)
	return signed + "." + b64(s.signature(signed))
}

func (s signer) signature(signed string) []byte {
	h := s.hash().New()
	h.Write([]byte(signed))
	switch key := s.key.(type) {
	case *rsa.PrivateKey:
		return mustBytes(rsa.SignPKCS1v15(rand.Reader, key, s.hash(), h.Sum(nil)))
	case *ecdsa.PrivateKey:
		r, v, err := ecdsa.Sign(rand.Reader, key, h.Sum(nil))
		if err != nil {
			panic(err)
		}
		half := map[string]int{"ES256": 32, "ES384": 48, "ES512": 66}[s.alg] // also for a curve that does not belong to it
		return append(r.FillBytes(make([]byte, half)), v.FillBytes(make([]byte, half))...)
	}
	panic("no such key")
}

func mustBytes(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// shared signs with a shared secret, which the API server never does.
func shared(alg string, secret []byte, header map[string]any, claims any) string {
	hash := map[string]func() []byte{}
	signed := encode(header) + "." + encode(claims)
	hash["HS256"] = func() []byte { m := hmac.New(sha256.New, secret); m.Write([]byte(signed)); return m.Sum(nil) }
	hash["HS512"] = func() []byte { m := hmac.New(sha512.New, secret); m.Write([]byte(signed)); return m.Sum(nil) }
	return signed + "." + b64(hash[alg]())
}

// public is the key as a member of a key set.
func (s signer) public() map[string]any {
	out := map[string]any{"use": "sig", "kid": s.kid, "alg": s.alg}
	switch key := s.key.Public().(type) {
	case *rsa.PublicKey:
		out["kty"], out["n"], out["e"] = "RSA", b64(key.N.Bytes()), "AQAB"
	case *ecdsa.PublicKey:
		point := mustBytes(key.Bytes())
		half := (len(point) - 1) / 2
		out["kty"], out["crv"], out["x"], out["y"] = "EC", key.Curve.Params().Name, b64(point[1:1+half]), b64(point[1+half:])
	}
	return out
}

var server = signer{"server", "RS256", rsaKey}

func flip(text string) string { // changes the first letter of a signature, which is not padding
	i := strings.LastIndexByte(text, '.') + 1
	c := byte('A')
	if text[i] == 'A' {
		c = 'B'
	}
	return text[:i] + string(c) + text[i+1:]
}
