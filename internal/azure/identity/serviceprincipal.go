package identity

import (
	"context"
	"maps"
	"slices"
	"strings"

	"keymount/internal/provider"
)

const modeServicePrincipal = "service principal"

// servicePrincipal identifies a request by the client secret in its nodePublishSecretRef. The key holds a digest of the
// secret: a wrong secret is another identity, which has to ask for its own token and will be refused.
func (s *FromRequest) servicePrincipal(req *provider.Request, spec Spec) (*Credential, error) {
	const prefix = "failed to build auth config for mode None: "
	if req.Secrets == nil {
		return nil, invalid("set nodePublishSecretRef on the volume, or clientID in the class for workload identity",
			prefix+"failed to get credentials, nodePublishSecretRef secret is not set")
	}
	client := strings.TrimSpace(lookup(req.Secrets, "clientid").Reveal())
	if client == "" {
		return nil, invalid("add the key clientid to the Secret that nodePublishSecretRef names",
			prefix+"could not find clientid in secrets")
	}
	if !printable(client) {
		return nil, invalid("put the application's id, a GUID, into the key clientid", prefix+"the clientid in secrets is not a client id")
	}
	secret := lookup(req.Secrets, "clientsecret")
	if secret == "" {
		return nil, invalid("add the key clientsecret to the Secret that nodePublishSecretRef names",
			prefix+"could not find clientsecret in secrets")
	}
	key := s.keys.held(modeServicePrincipal, spec, client, secret.Reveal())
	return &Credential{
		tokens: s.tokens, own: key, shared: key, shares: sharesNow,
		fetch: func(ctx context.Context) (AccessToken, error) {
			return s.entra.byClientSecret(ctx, spec, client, secret)
		},
	}, nil
}

// lookup finds a key in any case, as the provider that this one replaces does. Of several spellings the lower-case one
// counts, then the first in order, so that the same Secret always gives the same answer.
func lookup(secrets map[string]provider.Sensitive, key string) provider.Sensitive {
	if v, ok := secrets[key]; ok {
		return v
	}
	for _, k := range slices.Sorted(maps.Keys(secrets)) {
		if strings.EqualFold(k, key) {
			return secrets[k]
		}
	}
	return ""
}

// printable says whether a client id may be part of requests, keys and messages.
func printable(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(s) <= 256
}
