package identity

import (
	"context"

	"keymount/internal/provider"
)

const modeDefaultChain = "the developer's sign-in"

// DefaultChain is the Source for a person at a development machine: whatever the SDK's default chain finds, such as the
// sign-in of `az login`. It ignores the class's mode and asks nothing of the request: everybody whom this process serves
// is that person.
type DefaultChain struct {
	keys   *keyring
	tokens *tokens
	entra  *entra
}

var _ Source = (*DefaultChain)(nil)

// NewDefaultChain returns a DefaultChain.
func NewDefaultChain(cfg Config) *DefaultChain {
	return &DefaultChain{keys: newKeyring(), tokens: newTokens(cfg), entra: newEntra(cfg)}
}

// Credential implements Source.
func (s *DefaultChain) Credential(_ context.Context, _ *provider.Request, spec Spec) (*Credential, error) {
	spec, err := checked(spec)
	if err != nil {
		return nil, err
	}
	key := s.keys.held(modeDefaultChain, spec, "", "")
	return &Credential{
		tokens: s.tokens, own: key, shared: key, shares: sharesNow,
		fetch: func(ctx context.Context) (AccessToken, error) { return s.entra.byDefaultChain(ctx, spec) },
	}, nil
}
