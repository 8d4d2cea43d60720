// Package token says how far the service account tokens of a pod may be trusted: whether kubelet made them, whether the API
// server signed them, and whether they are this pod's own. Reads of secrets are shared between pods on that word.
//
// A token is proven, in this order, by having come in the secrets of the CSI request, under a key that no Kubernetes Secret
// can hold; by having come in the volume context while the CSIDriver object requests its audience there, so that kubelet
// replaced whatever the pod's author wrote; or by its signature. None of these counts unless the token says that it is this
// pod's, for this audience, and has not expired.
//
// The package imports the provider contract and client-go. It keeps digests of tokens, never tokens. Every method may be
// called from any number of goroutines.
package token

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"keymount/internal/provider"
)

// An Origin is where in a CSI request tokens came from.
type Origin int

const (
	// InVolumeContext is the volume context, where the pod's author may have written what kubelet did not replace.
	InVolumeContext Origin = iota
	// InSecrets is the secrets of the request, where only kubelet can put them.
	InSecrets
)

const (
	// maxProven bounds the digests of proven tokens that are kept.
	maxProven = 4096
	// readTimeout bounds a read from the API server.
	readTimeout = 5 * time.Second
)

// Config says what tokens are proven with.
type Config struct {
	API *rest.Config
	// DriverName is the name of the CSIDriver object.
	DriverName string
	Log        *slog.Logger
	// FirstRetry and LastRetry bound the wait before a broken watch is opened again; 0 means 0.8 s and 30 s.
	FirstRetry, LastRetry time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Prover proves tokens.
type Prover struct {
	now    func() time.Time
	driver *driver
	keys   *keys

	mu sync.Mutex
	// proven holds what came out for tokens whose origin proves nothing, by digest of audience and token.
	proven map[digest]verdict
}

type digest [sha256.Size]byte

type verdict struct {
	proof   provider.Proof
	expires time.Time
}

// New returns a Prover. It sends nothing.
func New(cfg Config) (*Prover, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	api := rest.CopyConfig(cfg.API)
	api.Timeout = 0 // it would end the watch too
	client, err := dynamic.NewForConfig(api)
	if err != nil {
		return nil, fmt.Errorf("making a client for the CSIDriver object: %w", err)
	}
	keys, err := newKeys(api, cfg)
	if err != nil {
		return nil, fmt.Errorf("making a client for the keys of the API server: %w", err)
	}
	return &Prover{now: cfg.Now, driver: newDriver(client, cfg), keys: keys, proven: map[digest]verdict{}}, nil
}

// Run keeps what is known of the CSIDriver object fresh until ctx is done, and returns nil then. It watches from the first
// token on that needs it. It is called once.
func (p *Prover) Run(ctx context.Context) error {
	p.driver.run(ctx)
	return nil
}

// Prove returns the tokens in text, which is what kubelet writes: a JSON object by audience. Each carries the best proof that
// there is. What cannot be asked for leaves a token unproven and is no error; an error is an *provider.Error about a text of
// another form, which repeats none of it. "" holds no tokens.
func (p *Prover) Prove(ctx context.Context, pod provider.Pod, text string, from Origin) (map[string]provider.Token, error) {
	found, err := decode(text)
	if err != nil {
		return nil, &provider.Error{Kind: provider.Invalid, Message: "reading the service account tokens of the pod: " + err.Error(),
			Remedy: "leave csi.storage.k8s.io/serviceAccount.tokens to kubelet"}
	}
	out := make(map[string]provider.Token, len(found))
	for audience, f := range found {
		j, err := parseJWT(f.token.Reveal())
		token := provider.Token{Value: f.token, Expires: f.expires}
		if err == nil {
			if token.Expires.IsZero() {
				token.Expires = j.claims.expires
			}
			if now := p.now(); j.claims.belongs(pod, audience, now) && now.Before(token.Expires) {
				token.Proof = p.proof(ctx, audience, f.token, j, from)
			}
		}
		out[audience] = token
	}
	return out, nil
}

// proof returns why a token that says the right things is to be believed.
func (p *Prover) proof(ctx context.Context, audience string, token provider.Sensitive, j *jwt, from Origin) provider.Proof {
	if from == InSecrets {
		return provider.ProvenByRequest
	}
	id := digest(sha256.Sum256([]byte(audience + "\x00" + token.Reveal())))
	p.mu.Lock()
	known, ok := p.proven[id]
	p.mu.Unlock()
	if ok {
		return known.proof
	}
	proof := provider.Unproven
	switch {
	case p.driver.requests(ctx, audience):
		proof = provider.ProvenByCSIDriver
	case audience == "" && !slices.Contains(j.claims.audiences, j.claims.issuer):
		// "" stands for the API server's own audience. Which that is is only known where it is the usual one, its issuer.
	case p.keys.signed(ctx, j):
		proof = provider.ProvenBySignature
	}
	if proof != provider.Unproven {
		p.keep(id, verdict{proof, j.claims.expires})
	}
	return proof
}

// keep remembers a verdict until the token expires. Unproven tokens are looked at again: a key may turn up.
func (p *Prover) keep(id digest, v verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.proven) >= maxProven {
		now := p.now()
		for old, v := range p.proven {
			if !now.Before(v.expires) {
				delete(p.proven, old)
			}
		}
	}
	for old := range p.proven { // all alive: any has to go
		if len(p.proven) < maxProven {
			break
		}
		delete(p.proven, old)
	}
	p.proven[id] = v
}
