// Package vault reads secrets, keys, certificates and lists of versions from Azure Key Vault, each read paid for once.
//
// Whoever reads says who asks: the credential is an argument of every method, and its identity key is part of every key
// under which a read is shared. Within one identity, equal reads that are in flight are one request, and a read that has
// just succeeded serves those who ask within Config.ShareFor of its start. Reads belong to no caller: the end of the caller
// that started one fails nobody else.
//
// It owns the requests (azcore's pipeline with policies of its own), their retries, how many are in flight per vault and
// how a vault that throttles is spared, and what every failure means. It imports the provider contract and package
// identity. A Client may be used from any number of goroutines.
package vault

import (
	"context"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"keymount/internal/azure/identity"
)

// APIVersion is the version of the REST interface that is asked for. Azure Stack Hub knows none newer, and for what is
// read here newer ones add nothing.
const APIVersion = "7.4"

// Defaults of Config.
const (
	DefaultReadsInFlight = 32
	DefaultTryTimeout    = 10 * time.Second
	DefaultReadTimeout   = 110 * time.Second
	DefaultShareFor      = 5 * time.Second
)

// Config is what a Client needs. The zero value works, without sharing of finished reads.
type Config struct {
	// Transport carries the requests; nil means an identity.NewTransport of its own.
	Transport http.RoundTripper
	// UserAgent names the program to the vault; "" means "keymount".
	UserAgent string
	// ReadsInFlight bounds the requests in flight per vault; 0 means DefaultReadsInFlight.
	ReadsInFlight int
	// TryTimeout bounds one try of a request; 0 means DefaultTryTimeout.
	TryTimeout time.Duration
	// ReadTimeout bounds a read with all its tries and waits, whoever waits for it; 0 means DefaultReadTimeout.
	ReadTimeout time.Duration
	// ShareFor is how long before a call a read may have started that serves it. 0 shares only what is in flight.
	ShareFor time.Duration
	// APIVersion is sent with every request; "" means the constant.
	APIVersion string
	// Now is the clock by which reads are shared; nil means time.Now.
	Now func() time.Time
}

// A Client reads from vaults. Make one per process.
type Client struct {
	cfg      Config
	pipeline runtime.Pipeline
	limits   *limits
	shares   *shares
	// requests were sent to vaults, refusals are those that were answered with 429.
	requests, refusals atomic.Uint64
}

// New returns a Client.
func New(cfg Config) *Client {
	if cfg.Transport == nil {
		cfg.Transport = identity.NewTransport()
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "keymount"
	}
	if cfg.ReadsInFlight <= 0 {
		cfg.ReadsInFlight = DefaultReadsInFlight
	}
	if cfg.TryTimeout <= 0 {
		cfg.TryTimeout = DefaultTryTimeout
	}
	if cfg.ReadTimeout <= 0 {
		cfg.ReadTimeout = DefaultReadTimeout
	}
	if cfg.APIVersion == "" {
		cfg.APIVersion = APIVersion
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Client{cfg: cfg, limits: newLimits(cfg.ReadsInFlight), shares: newShares(cfg.Now, cfg.ShareFor)}
	c.pipeline = runtime.NewPipeline("keymount", "", runtime.PipelineOptions{
		PerRetry: []policy.Policy{bearerPolicy{}, slotPolicy{timeout: cfg.TryTimeout}},
	}, &policy.ClientOptions{
		Transport: identity.Transporter{RoundTripper: cfg.Transport},
		Telemetry: policy.TelemetryOptions{Disabled: true}, // the user agent is set with the request
	})
	return c
}

// Counts are what a Client has done since it was made.
type Counts struct {
	Requests  uint64 // sent to vaults, every try and page
	Throttled uint64 // of these, answered with 429
	Shared    uint64 // reads that another's served
}

// Counts returns what was done so far.
func (c *Client) Counts() Counts {
	return Counts{Requests: c.requests.Load(), Throttled: c.refusals.Load(), Shared: c.shares.hits.Load()}
}

// Secret reads a secret. version "" means the newest. vaultURL is the vault's address, such as
// https://example.vault.azure.net. The result is shared with other callers and must not be changed; so are those of the
// other methods. Errors of all methods are *provider.Error, with Object set unless the credential failed.
func (c *Client) Secret(ctx context.Context, who *identity.Credential, vaultURL, name, version string) (*Secret, error) {
	return read(ctx, c, who, object{vaultURL, KindSecret, name, version, false}, decodeSecret)
}

// Key reads the public part of a key.
func (c *Client) Key(ctx context.Context, who *identity.Credential, vaultURL, name, version string) (*Key, error) {
	return read(ctx, c, who, object{vaultURL, KindKey, name, version, false}, decodeKey)
}

// Certificate reads a certificate, without its key and chain: those are in the secret of the same name and version.
func (c *Client) Certificate(ctx context.Context, who *identity.Credential, vaultURL, name, version string) (*Certificate, error) {
	return read(ctx, c, who, object{vaultURL, KindCertificate, name, version, false}, decodeCertificate)
}

// Versions lists all versions of an object, disabled ones too: newest first, those of the same second by version in
// descending order. An object that does not exist has none. The result is the caller's.
func (c *Client) Versions(ctx context.Context, who *identity.Credential, vaultURL string, kind Kind, name string) ([]Version, error) {
	all, err := shared(ctx, c, who, object{vaultURL, kind, name, "", true}, c.list)
	return slices.Clone(all), err
}
