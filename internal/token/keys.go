package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

const (
	// keysPath is where an API server publishes the keys of its service account tokens.
	keysPath = "/openid/v1/jwks"
	// keysEvery is how often the keys are asked for at most: a token can name any key, and whoever writes one could make
	// every node ask.
	keysEvery = time.Minute
	// keysFor is how long keys are used before they are asked for again, so that a key that was withdrawn stops to count.
	keysFor = time.Hour

	maxKeySet = 1 << 20
	maxKeys   = 64
)

// keys are the public keys of the API server, by id.
type keys struct {
	client rest.Interface
	now    func() time.Time
	trouble
	reads singleflight.Group

	mu   sync.Mutex
	byID map[string]crypto.PublicKey
	// read is when the keys came, tried when they were last asked for.
	read, tried time.Time
}

func newKeys(api *rest.Config, cfg Config) (*keys, error) {
	config := rest.CopyConfig(api)
	config.NegotiatedSerializer = serializer.WithoutConversionCodecFactory{CodecFactory: serializer.NewCodecFactory(runtime.NewScheme())}
	client, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		return nil, err
	}
	return &keys{client: client, now: cfg.Now, trouble: trouble{log: cfg.Log,
		begins: "the API server's token keys cannot be read; tokens in volume contexts whose audience the CSIDriver object does " +
			"not request are not proven, and reads are not shared on them; the ClusterRole system:service-account-issuer-discovery grants the right",
		ends: "the API server's token keys can be read again"}}, nil
}

// signed says whether the API server signed the token.
func (k *keys) signed(ctx context.Context, j *jwt) bool {
	if j.keyID == "" {
		return false
	}
	key, fresh := k.find(j.keyID)
	if key == nil || !fresh {
		done := k.reads.DoChan("", func() (any, error) { k.refresh(); return nil, nil })
		select {
		case <-done:
		case <-ctx.Done():
			return false
		}
		key, _ = k.find(j.keyID)
	}
	return key != nil && j.signedBy(key)
}

// find returns the key of an id, nil if there is none, and whether that can be relied on.
func (k *keys) find(id string) (key crypto.PublicKey, fresh bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.byID[id], k.now().Sub(k.read) < keysFor
}

// refresh reads the keys unless that was tried a moment ago. Where it fails the old ones stay.
func (k *keys) refresh() {
	k.mu.Lock()
	recent := !k.tried.IsZero() && k.now().Sub(k.tried) < keysEvery
	k.mu.Unlock()
	if recent {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	set, err := k.fetch(ctx)
	k.note(err)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tried = k.now()
	if err == nil {
		k.byID, k.read = set, k.tried
	}
}

func (k *keys) fetch(ctx context.Context) (map[string]crypto.PublicKey, error) {
	body, err := k.client.Get().AbsPath(keysPath).SetHeader("Accept", "application/jwk-set+json, application/json").Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxKeySet+1))
	if err != nil {
		return nil, fmt.Errorf("reading the key set: %w", err)
	}
	if len(data) > maxKeySet {
		return nil, errors.New("the key set is too large")
	}
	return parseKeys(data)
}

// A jwk is a public key as RFC 7517 writes it.
type jwk struct {
	Kty, Kid, Use, Alg, Crv string
	N, E, X, Y              string
	KeyOps                  []string `json:"key_ops"`
}

// parseKeys reads a key set. Keys that cannot be meant for signatures of service account tokens are left out, and so are
// those that share an id, since it would not be clear which one a token means.
func parseKeys(data []byte) (map[string]crypto.PublicKey, error) {
	var set struct{ Keys []jwk }
	if err := json.Unmarshal(data, &set); err != nil || set.Keys == nil {
		return nil, errors.New("the key set is not in the form of RFC 7517")
	}
	if len(set.Keys) > maxKeys {
		return nil, errors.New("the key set has too many keys")
	}
	out := map[string]crypto.PublicKey{}
	seen := map[string]bool{}
	for _, k := range set.Keys {
		key := k.public()
		if seen[k.Kid] {
			key = nil
			delete(out, k.Kid)
		}
		seen[k.Kid] = true
		if key != nil && k.Kid != "" {
			out[k.Kid] = key
		}
	}
	return out, nil
}

// public returns the key, nil if it is none to verify with.
func (k jwk) public() crypto.PublicKey {
	if k.Use != "" && k.Use != "sig" || len(k.KeyOps) > 0 && !slices.Contains(k.KeyOps, "verify") {
		return nil
	}
	switch k.Kty {
	case "RSA":
		n, e := number(k.N), number(k.E)
		if n == nil || e == nil || n.BitLen() < 2048 || n.BitLen() > 8192 || e.BitLen() > 31 || e.Int64() < 3 || e.Bit(0) == 0 {
			return nil
		}
		return &rsa.PublicKey{N: n, E: int(e.Int64())}
	case "EC":
		curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Crv]
		x, y := number(k.X), number(k.Y)
		if curve == nil || x == nil || y == nil || max(x.BitLen(), y.BitLen()) > curve.Params().BitSize {
			return nil
		}
		size := (curve.Params().BitSize + 7) / 8
		point := append([]byte{4}, x.FillBytes(make([]byte, size))...)
		// It refuses points that are not on the curve.
		key, err := ecdsa.ParseUncompressedPublicKey(curve, append(point, y.FillBytes(make([]byte, size))...))
		if err != nil {
			return nil
		}
		return key
	}
	return nil
}

func number(text string) *big.Int {
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(data) == 0 {
		return nil
	}
	return new(big.Int).SetBytes(data)
}
