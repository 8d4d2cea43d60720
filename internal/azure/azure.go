// Package azure is the provider for Azure Key Vault: it reads what a SecretProviderClass lists and hands it over as files.
//
// It joins four packages and owns the order of things: parameters become a Spec (params), the request is identified
// (identity), everything is read at once (vault) and turned into files (encode). Either the whole bundle comes of it or
// every failure does. It imports none of the Azure SDK, which stays within identity and vault. A Provider may be used from
// any number of goroutines and keeps nothing between calls but what identity and vault keep under proven identities.
package azure

import (
	"log/slog"
	"net/http"
	"time"

	"keymount/internal/azure/identity"
	"keymount/internal/azure/params"
	"keymount/internal/azure/vault"
	"keymount/internal/provider"
)

// Name is how classes name this provider.
const Name = "azure"

// DefaultShareFor is how long before a call a read may have started that serves it, where nothing else is configured.
const DefaultShareFor = vault.DefaultShareFor

// Config is what the operator decides. The zero value works and is upstream's default but for ConstructPEMChain.
type Config struct {
	// Identity decides by which credential a request reads; nil means an identity.FromRequest on Transport.
	Identity identity.Source
	// Transport carries the requests to vaults; nil means one of its own. Share one in a process.
	Transport http.RoundTripper
	// CloudName is the cloud of classes that name none; "" means AzurePublicCloud.
	CloudName string
	// CloudFile describes the custom cloud of classes that name no file of their own (AZURE_ENVIRONMENT_FILEPATH).
	CloudFile string
	// CloudFolder holds the files that classes may name in cloudEnvFileName; "" allows CloudFile only. A class can never
	// have another file of this machine read.
	CloudFolder string
	// AuthorityHost is the Entra ID address for custom clouds whose file has none (AZURE_AUTHORITY_HOST).
	AuthorityHost string
	// ConstructPEMChain orders the certificates of PKCS #12 files; see encode.Options.
	ConstructPEMChain bool
	// WriteCertAndKeyInSeparateFiles adds NAME.crt and NAME.key for secrets of certificates.
	WriteCertAndKeyInSeparateFiles bool
	// ReadsInFlightPerVault and TryTimeout are those of vault.Config; 0 means its defaults.
	ReadsInFlightPerVault int
	TryTimeout            time.Duration
	// ShareFor is how long before a call a read may have started that serves it; 0 shares only what is in flight.
	ShareFor time.Duration
	// UserAgent names the program to vaults and to Entra ID.
	UserAgent string
	// Observe is told of every version of an object that was read and every history that was listed; nil means nobody is.
	Observe func(Read)
	// Logger gets what no caller could be told, such as the stack of a defect; nil means nobody does.
	Logger *slog.Logger
}

// A Read is what came of one object of a class.
type Read struct {
	ObjectType string // "secret", "key" or "cert"
	Err        error  // may name the object: no value for a label
	Took       time.Duration
}

// A Provider reads from Azure Key Vault.
type Provider struct {
	cfg      Config
	identity identity.Source
	vault    *vault.Client
	log      *slog.Logger
	places   chan struct{} // of large mounts
}

var _ provider.Meter = (*Provider)(nil)

// New returns a Provider. The error is about the configuration: a cloud that does not exist.
func New(cfg Config) (*Provider, error) {
	if err := params.CheckCloudName(cfg.CloudName); err != nil {
		return nil, err
	}
	if cfg.Transport == nil {
		cfg.Transport = identity.NewTransport()
	}
	if cfg.Identity == nil {
		cfg.Identity = identity.NewFromRequest(identity.Config{Transport: cfg.Transport, UserAgent: cfg.UserAgent, Logger: cfg.Logger})
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Read) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Provider{
		cfg:      cfg,
		identity: cfg.Identity,
		log:      cfg.Logger,
		places:   make(chan struct{}, maxLarge),
		vault: vault.New(vault.Config{
			Transport:     cfg.Transport,
			UserAgent:     cfg.UserAgent,
			ReadsInFlight: cfg.ReadsInFlightPerVault,
			TryTimeout:    cfg.TryTimeout,
			ShareFor:      cfg.ShareFor,
		}),
	}, nil
}

// Measure implements provider.Meter.
func (p *Provider) Measure() provider.Measures {
	reads := p.vault.Counts()
	m := provider.Measures{Reads: reads.Requests, SharedReads: reads.Shared, Throttled: reads.Throttled}
	if c, ok := p.identity.(identity.Counter); ok {
		tokens := c.Counts()
		m.Tokens, m.TokenFailures = tokens.Fetched, tokens.Failed
	}
	return m
}
