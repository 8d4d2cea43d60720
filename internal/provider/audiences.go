package provider

import (
	"context"
	"maps"
	"slices"
)

// Audiences says which service account tokens a provider is given, by the provider's name: a provider that is not named
// gets all, one that is named with none gets none. The zero value restricts nobody.
type Audiences map[string][]string

// Restrict returns p with requests that hold the tokens which the provider of that name is given, and no others.
func (a Audiences) Restrict(name string, p Provider) Provider {
	allowed, restricted := a[name]
	if !restricted {
		return p
	}
	return &withAudiences{Provider: p, allowed: allowed}
}

type withAudiences struct {
	Provider
	allowed []string
}

var _ TargetWriter = (*withAudiences)(nil)

// Fetch implements Provider. The caller's request stays as it is.
func (p *withAudiences) Fetch(ctx context.Context, req *Request) (*Bundle, error) {
	given := *req
	given.Tokens = maps.Clone(req.Tokens)
	maps.DeleteFunc(given.Tokens, func(audience string, _ Token) bool { return !slices.Contains(p.allowed, audience) })
	return p.Provider.Fetch(ctx, &given)
}

// MayWriteTarget implements TargetWriter.
func (p *withAudiences) MayWriteTarget() bool {
	w, ok := p.Provider.(TargetWriter)
	return ok && w.MayWriteTarget()
}
