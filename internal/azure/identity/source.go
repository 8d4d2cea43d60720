package identity

import (
	"context"
	"log/slog"
	"net/url"
	"strings"

	"keymount/internal/azure/params"
	"keymount/internal/provider"
)

// Logger is the logger that sources use.
type Logger = *slog.Logger

// FromRequest is the Source for pods: a request is identified by what it brings, in the mode that its class names.
type FromRequest struct {
	keys   *keyring
	tokens *tokens
	entra  *entra
}

var _ Source = (*FromRequest)(nil)

// NewFromRequest returns a FromRequest. One per process: access tokens are kept in it.
func NewFromRequest(cfg Config) *FromRequest {
	return &FromRequest{keys: newKeyring(), tokens: newTokens(cfg), entra: newEntra(cfg)}
}

// Credential implements Source.
func (s *FromRequest) Credential(_ context.Context, req *provider.Request, spec Spec) (*Credential, error) {
	spec, err := checked(spec)
	if err != nil {
		return nil, err
	}
	switch spec.Mode {
	case params.ServicePrincipal:
		return s.servicePrincipal(req, spec)
	case params.WorkloadIdentity:
		return s.workloadIdentity(req, spec)
	}
	return nil, &provider.Error{
		Kind:    provider.Invalid,
		Message: "identity mode " + spec.Mode.String() + " is not supported",
		Remedy:  "this version supports workload identity (clientID) and a service principal (nodePublishSecretRef)",
	}
}

// checked returns the spec with addresses in one spelling. Tenant and addresses become parts of URLs to which secrets are
// sent, so whatever made the spec, they are checked here.
func checked(spec Spec) (Spec, error) {
	if !validTenant(spec.TenantID) {
		return Spec{}, invalid("the tenant is the id of a directory, of letters, digits, '.' and '-'",
			"failed to get keyvault client: invalid tenantID. You can locate your tenantID by looking at the properties of the directory")
	}
	for _, address := range []*string{&spec.Authority, &spec.Resource} {
		*address = strings.TrimRight(*address, "/")
		u, err := url.Parse(*address)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return Spec{}, invalid("correct the description of the cloud", "the addresses of the cloud are not https addresses")
		}
	}
	return spec, nil
}

func validTenant(s string) bool {
	for _, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		digit := c >= '0' && c <= '9'
		if !letter && !digit && c != '.' && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 256 && strings.Trim(s, ".") != ""
}

func invalid(remedy, message string) *provider.Error {
	return &provider.Error{Kind: provider.Invalid, Message: message, Remedy: remedy}
}
