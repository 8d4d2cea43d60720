package emulator

import (
	"net"
	"strings"
)

// A Cloud is a set of host names that belong together.
type Cloud struct {
	// Name is what vaults of a seed refer to.
	Name string `yaml:"name"`
	// VaultSuffix is the part of a vault's host after its name and a dot.
	VaultSuffix string `yaml:"vaultSuffix"`
	// Authority is the host of the token endpoint.
	Authority string `yaml:"authority"`
	// Aliases are further hosts that answer as Authority.
	Aliases []string `yaml:"aliases,omitempty"`
	// STS is the host in the issuer of access tokens.
	STS string `yaml:"sts,omitempty"`
	// Resource is the audience of access tokens for vaults, without a trailing slash.
	Resource string `yaml:"resource,omitempty"`
}

// PublicCloud is the name of the cloud of a vault that names none.
const PublicCloud = "AzurePublicCloud"

// clouds are the public ones (Azure documentation, "Azure Key Vault security: DNS suffixes" of each cloud).
func clouds() []Cloud {
	return []Cloud{
		{Name: PublicCloud, VaultSuffix: "vault.azure.net", Authority: "login.microsoftonline.com",
			Aliases: []string{"login.windows.net", "login.microsoft.com", "sts.windows.net"}, STS: "sts.windows.net"},
		{Name: "AzureUSGovernmentCloud", VaultSuffix: "vault.usgovcloudapi.net", Authority: "login.microsoftonline.us",
			Aliases: []string{"login.usgovcloudapi.net"}, STS: "sts.windows.net"},
		{Name: "AzureChinaCloud", VaultSuffix: "vault.azure.cn", Authority: "login.chinacloudapi.cn",
			Aliases: []string{"login.partner.microsoftonline.cn"}, STS: "sts.chinacloudapi.cn"},
		{Name: "AzureGermanCloud", VaultSuffix: "vault.microsoftazure.de", Authority: "login.microsoftonline.de",
			STS: "sts.microsoftonline.de"},
	}
}

func (c *Cloud) fill() {
	if c.Resource == "" {
		c.Resource = "https://" + c.VaultSuffix
	}
	if c.STS == "" {
		c.STS = c.Authority
	}
}

// hostName is the host without port, trailing dot and upper case.
func hostName(hostport string) string {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// A site is what stands behind one host name; exactly one of its members is set.
type site struct {
	vault     *vault
	authority *Cloud
	issuer    *Issuer
}

// site finds what stands behind a host. The caller holds s.mu.
func (s *Server) site(host string) (site, bool) {
	if v := s.vaults[host]; v != nil {
		return site{vault: v}, true
	}
	for _, c := range s.clouds {
		if host == c.Authority {
			return site{authority: c}, true
		}
		for _, a := range c.Aliases {
			if host == a {
				return site{authority: c}, true
			}
		}
	}
	for _, is := range s.issuers {
		if host == is.host {
			return site{issuer: is}, true
		}
	}
	return site{}, false
}

// Serves reports whether the host, with or without a port, is one of the emulator's. For a vault that no seed names
// the answer is false: the service's own name servers do not know such a host either.
func (s *Server) Serves(host string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.site(hostName(host))
	return ok
}
