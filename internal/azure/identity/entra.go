package identity

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"keymount/internal/provider"
)

// entra asks Entra ID for access tokens, by azidentity.
//
// Each fetch makes a credential object of its own, used once: such an object would keep tokens by rules of its own, hand
// the wrong one of two assertions to a fetch, and hold a lock over its network calls. Once per identity and hour that
// costs about a millisecond; the discovery document that each new object asks for is kept by discovery.
type entra struct {
	transport http.RoundTripper
	userAgent string
	log       *slog.Logger
}

func newEntra(cfg Config) *entra {
	rt := cfg.Transport
	if rt == nil {
		rt = NewTransport()
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &entra{transport: newDiscovery(rt, cfg.Now), userAgent: cfg.UserAgent, log: log}
}

// byClientSecret is the client credentials grant with a shared secret (RFC 6749 4.4).
func (e *entra) byClientSecret(ctx context.Context, spec Spec, client string, secret provider.Sensitive) (AccessToken, error) {
	a := e.asking(spec, modeServicePrincipal+" "+client)
	cred, err := azidentity.NewClientSecretCredential(spec.TenantID, client, secret.Reveal(),
		&azidentity.ClientSecretCredentialOptions{ClientOptions: a.options(), DisableInstanceDiscovery: true})
	if err != nil {
		return AccessToken{}, a.unusable(err)
	}
	return a.ask(ctx, cred)
}

// byAssertion is the client credentials grant with a service account token (RFC 7523 2.2).
func (e *entra) byAssertion(ctx context.Context, spec Spec, assertion provider.Sensitive, said claims) (AccessToken, error) {
	a := e.asking(spec, modeWorkloadIdentity+" "+spec.ClientID)
	a.said = said
	cred, err := azidentity.NewClientAssertionCredential(spec.TenantID, spec.ClientID,
		func(context.Context) (string, error) { return assertion.Reveal(), nil },
		&azidentity.ClientAssertionCredentialOptions{ClientOptions: a.options(), DisableInstanceDiscovery: true})
	if err != nil {
		return AccessToken{}, a.unusable(err)
	}
	return a.ask(ctx, cred)
}

// byDefaultChain is whatever the developer's machine has.
func (e *entra) byDefaultChain(ctx context.Context, spec Spec) (AccessToken, error) {
	a := e.asking(spec, modeDefaultChain)
	a.chain = true
	cred, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		ClientOptions: a.options(), DisableInstanceDiscovery: true, TenantID: spec.TenantID})
	if err != nil {
		return AccessToken{}, a.unusable(err)
	}
	return a.ask(ctx, cred)
}

// asking is one fetch of a token: whose, where, and what the network last said.
type asking struct {
	spec  Spec
	who   string
	said  claims // of the assertion, to compare with the federated credential
	chain bool
	log   *slog.Logger

	transport http.RoundTripper
	userAgent string
	mu        sync.Mutex
	lastErr   error // of the last request, nil if it was answered: azidentity keeps the text of errors only
	granted   bool  // an answer said that it held a token
}

func (e *entra) asking(spec Spec, who string) *asking {
	return &asking{spec: spec, who: who, log: e.log, transport: e.transport, userAgent: e.userAgent}
}

func (a *asking) options() azcore.ClientOptions {
	return azcore.ClientOptions{
		Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: a.spec.Authority + "/"},
		Telemetry: policy.TelemetryOptions{ApplicationID: "keymount"},
		Transport: a,
		Retry: policy.RetryOptions{
			MaxRetries: 3, TryTimeout: 10 * time.Second, RetryDelay: 800 * time.Millisecond, MaxRetryDelay: 10 * time.Second,
		},
	}
}

// Do implements policy.Transporter.
func (a *asking) Do(req *http.Request) (*http.Response, error) {
	if a.userAgent != "" {
		req.Header.Set("User-Agent", a.userAgent) // the SDK's own names no program in more than 24 letters
	}
	t := Transporter{RoundTripper: a.transport, AllowHTTP: a.chain}
	resp, err := t.Do(req)
	a.mu.Lock()
	a.lastErr = err
	a.granted = a.granted || err == nil && resp.StatusCode < 300 && !strings.HasSuffix(req.URL.Path, discoveryPath)
	a.mu.Unlock()
	return resp, err
}

func (a *asking) ask(ctx context.Context, cred azcore.TokenCredential) (AccessToken, error) {
	token, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{a.spec.Resource + "/.default"}})
	if err != nil {
		return AccessToken{}, a.explain(ctx, err)
	}
	return AccessToken{Value: provider.Sensitive(token.Token), Expires: token.ExpiresOn}, nil
}

// unusable is for what the SDK refuses before it asks anybody.
func (a *asking) unusable(err error) error {
	return &provider.Error{Kind: provider.Invalid, Message: "getting an access token for " + a.who + ": " + Tidy(err.Error())}
}
