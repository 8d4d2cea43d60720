// Package identity turns what a class says about its identity, and what a request brings to prove it, into a credential
// for Key Vault and a key that says who is asking.
//
// It owns the rule on which the safety of all sharing rests: two requests have equal keys only if both have proven to be
// the same identity. Whatever is kept between requests (access tokens here, reads in package vault) is kept under such a
// key, so naming somebody's tenant and client id is never enough to be served what they fetched.
//
// One file per way to be identified: serviceprincipal.go, workload.go, defaultchain.go. Tokens are fetched by azidentity,
// once per identity and lifetime. The package imports the provider contract and the modes of package params, and nothing
// of the vault. Everything in it may be used from any number of goroutines.
package identity

import (
	"context"
	"net/http"
	"time"

	"keymount/internal/azure/params"
	"keymount/internal/provider"
)

// A Spec is what a class says about who reads, resolved to addresses: the name of a cloud is not part of it, since two
// requests may mean different things by one name.
type Spec struct {
	Mode     params.Mode
	TenantID string
	// ClientID is the application of workload identity; service principals bring theirs in the request's secrets.
	ClientID string
	// UserAssignedID is the client id of a user-assigned managed identity, "" for the system-assigned one.
	UserAssignedID string
	// Authority is the https address of Entra ID, such as https://login.microsoftonline.com.
	Authority string
	// Resource is what access tokens are for, such as https://vault.azure.net.
	Resource string
}

// A Source decides by which credential a request reads.
//
// Credential asks nobody: it checks what the request brought and returns, and tokens are fetched when something is read.
// Its errors are *provider.Error, of kind Invalid where the class or its Secret must change, Denied where the request's
// token is another pod's. The request is not kept, except for the token or secret that the credential needs.
type Source interface {
	Credential(ctx context.Context, req *provider.Request, spec Spec) (*Credential, error)
}

// An AccessToken is what a vault accepts.
type AccessToken struct {
	Value   provider.Sensitive
	Expires time.Time
}

// A Credential is one request's way to get access tokens. It lives as long as the request does; what is worth keeping
// longer is kept by the Source that made it.
type Credential struct {
	tokens *tokens
	// own is the key that nobody has who lacks the very same secret or token.
	own Key
	// shared is the key of the identity that the request claims, meaningful if shares is not sharesNothing.
	shared Key
	shares sharing
	// fetch asks for a token with the request's own proof, always over the network. Its errors are *provider.Error.
	fetch func(ctx context.Context) (AccessToken, error)
}

type sharing int

const (
	// sharesNothing: the request is nobody but itself.
	sharesNothing sharing = iota
	// sharesOnceAccepted: the request's token says whose it is, and whoever verifies its signature decides if that holds.
	sharesOnceAccepted
	// sharesNow: the identity is proven.
	sharesNow
)

// Key returns who asks. For a service account token of unknown origin that may take one exchange with Entra ID, which
// verifies it; the error is then that exchange's and concerns this credential only.
func (c *Credential) Key(ctx context.Context) (Key, error) {
	switch c.shares {
	case sharesNow:
		return c.shared, nil
	case sharesOnceAccepted:
		if c.tokens.alive(c.own) {
			return c.shared, nil
		}
		token, err := c.tokens.get(ctx, c.own, c)
		if err != nil {
			return Key{}, err
		}
		c.tokens.adopt(c.shared, token)
		return c.shared, nil
	}
	return c.own, nil
}

// Token returns an access token of this identity, fetching one if there is none. One fetch serves all that wait for the
// same identity; it is not ended by the caller's context, which only ends the wait. A fetch that fails because of the
// credential fails for those who hold that credential, and the others try with their own.
func (c *Credential) Token(ctx context.Context) (AccessToken, error) {
	key, err := c.Key(ctx)
	if err != nil {
		return AccessToken{}, err
	}
	return c.tokens.get(ctx, key, c)
}

// Renew returns a token to use instead of one that a vault has rejected. It fetches at most one per identity in ten
// seconds and otherwise returns the rejected one, so that a vault that rejects everything is not paid for in fetches.
func (c *Credential) Renew(ctx context.Context, rejected AccessToken) (AccessToken, error) {
	key, err := c.Key(ctx)
	if err != nil {
		return AccessToken{}, err
	}
	return c.tokens.renew(ctx, key, c, rejected)
}

// SameProof says whether two credentials stand on the same secret or token, so that one fails where the other does.
func (c *Credential) SameProof(other *Credential) bool { return c.own == other.own }

// String describes the identity without what proves it.
func (c *Credential) String() string { return c.own.String() }

// Config is what sources need from the process. The zero value works.
type Config struct {
	// Transport carries the requests to Entra ID; nil means a NewTransport of its own.
	Transport http.RoundTripper
	// UserAgent names the program to Entra ID; "" leaves the SDK's own.
	UserAgent string
	// Logger gets, at debug level, what error texts leave out because it never repeats, such as trace ids. nil means none.
	Logger Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}
