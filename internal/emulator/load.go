package emulator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

var (
	validVault   = regexp.MustCompile(`^[a-zA-Z][0-9a-zA-Z-]{1,22}[0-9a-zA-Z]$`)
	validVersion = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// Load adds what the seed says to the emulator. The error names every place of the seed that is wrong, and what to write there; then the
// emulator may hold a part of the seed.
func (s *Server) Load(seed Seed) error {
	var p problems
	s.loadClouds(seed, &p)
	for i, in := range seed.Issuers {
		if err := s.loadIssuer(&seed, in); err != nil {
			p.add(fmt.Sprintf("issuers[%d]", i), "%w", err)
		}
	}
	for i, t := range seed.Tenants {
		s.loadTenant(t, fmt.Sprintf("tenants[%d]", i), &p)
	}
	for i, v := range seed.Vaults {
		place := fmt.Sprintf("vaults[%d]", i)
		if v.Tenant == "" && len(seed.Tenants) == 1 {
			v.Tenant = seed.Tenants[0].ID
		}
		if s.loadVault(v, place, &p) {
			s.loadObjects(&seed, v, place, &p)
		}
	}
	return errors.Join(p...)
}

func (s *Server) loadClouds(seed Seed, p *problems) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range seed.Clouds {
		place := fmt.Sprintf("clouds[%d]", i)
		if c.Name == "" || c.VaultSuffix == "" || c.Authority == "" {
			p.add(place, "name, vaultSuffix and authority are all needed, as in {name: AzureStackCloud, vaultSuffix: vault.stack.example, authority: login.stack.example}")
			continue
		}
		c.VaultSuffix, c.Authority = hostName(c.VaultSuffix), hostName(c.Authority)
		c.fill()
		s.clouds = append(s.clouds, &c)
	}
}

func (s *Server) loadIssuer(seed *Seed, in IssuerSeed) error {
	if in.JWKS == "" && in.JWKSFile == "" {
		_, err := s.AddIssuer(in.URL, in.Algorithm, nil)
		return err
	}
	if in.Algorithm != "" {
		return errors.New("algorithm and jwks are both given: leave algorithm out, since the keys of a key set have theirs")
	}
	document, err := seed.content(in.JWKS, in.JWKSFile)
	if err != nil {
		return fmt.Errorf("jwks: %w", err)
	}
	_, err = s.AddCluster(in.URL, []byte(document))
	return err
}

// AddCluster makes a real cluster's tokens known by its key set (RFC 7517), or gives a new key set to one that was added so.
func (s *Server) AddCluster(url string, jwks []byte) (*Issuer, error) {
	is, err := newKeylessIssuer(url, s.now)
	if err != nil {
		return nil, err
	}
	if is.keys, err = readKeySet(jwks); err != nil {
		return nil, fmt.Errorf("jwks: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.issuers[url]; old != nil && old.key != nil {
		return nil, fmt.Errorf("issuer %q is there already with a key of its own: give it once, with jwks or without", url)
	}
	s.issuers[url] = is
	return is, nil
}

// AddIssuer makes an emulated cluster, or returns the one that has the URL. The algorithm is ES256 ("" too) or RS256; key may be nil.
func (s *Server) AddIssuer(url, algorithm string, key crypto.Signer) (*Issuer, error) {
	if is := s.Issuer(url); is != nil {
		return is, nil
	}
	var err error
	switch {
	case key != nil:
	case algorithm == "RS256":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case algorithm == "" || algorithm == "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		return nil, fmt.Errorf("unknown algorithm %q: use ES256 or RS256", algorithm)
	}
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	is, err := newIssuer(url, key, s.now)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuers[url] = is
	return is, nil
}

func (s *Server) loadTenant(in Tenant, place string, p *problems) {
	if in.ID == "" || strings.ContainsAny(in.ID, "/?# ") {
		p.add(place+".id", "%q is not a tenant id: give a GUID or a domain name", in.ID)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tenants[strings.ToLower(in.ID)]
	if t == nil {
		t = &tenant{id: in.ID, apps: map[string]*App{}}
		s.tenants[strings.ToLower(in.ID)] = t
	}
	for i, app := range in.Apps {
		at := fmt.Sprintf("%s.apps[%d]", place, i)
		if app.ClientID == "" {
			p.add(at+".clientID", "is missing: give the application's client id")
			continue
		}
		for j, f := range app.Federated {
			if s.issuers[f.Issuer] == nil {
				p.add(fmt.Sprintf("%s.federated[%d].issuer", at, j), "%q is not among the seed's issuers: add it there, written exactly so", f.Issuer)
			}
			if f.Subject == "" {
				p.add(fmt.Sprintf("%s.federated[%d].subject", at, j), "is missing: use system:serviceaccount:<namespace>:<service account>")
			}
		}
		if app.ObjectID == "" {
			app.ObjectID = newGUID()
		}
		t.apps[strings.ToLower(app.ClientID)] = &app
	}
}

// loadVault makes the vault, or returns false.
func (s *Server) loadVault(in Vault, place string, p *problems) bool {
	before := len(*p)
	if !validVault.MatchString(in.Name) {
		p.add(place+".name", "%q is not a vault's name: 3 to 24 letters, digits and hyphens, a letter first", in.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tenants[strings.ToLower(in.Tenant)] == nil {
		p.add(place+".tenant", "%q is not among the seed's tenants: name one of them", in.Tenant)
	}
	if in.Cloud == "" {
		in.Cloud = PublicCloud
	}
	var cloud *Cloud
	for _, c := range s.clouds {
		if strings.EqualFold(c.Name, in.Cloud) {
			cloud = c
		}
	}
	if cloud == nil {
		p.add(place+".cloud", "%q is not known: use AzurePublicCloud, AzureUSGovernmentCloud, AzureChinaCloud, AzureGermanCloud, or add it to the seed's clouds", in.Cloud)
	}
	if in.RecoverableDays != 0 && (in.RecoverableDays < 7 || in.RecoverableDays > 90) {
		p.add(place+".recoverableDays", "%d is not between 7 and 90", in.RecoverableDays)
	}
	if in.Permissions != "" && in.Permissions != "rbac" && in.Permissions != "policies" {
		p.add(place+".permissions", "%q is neither rbac nor policies", in.Permissions)
	}
	for i, a := range in.Access {
		checkRights(p, fmt.Sprintf("%s.access[%d]", place, i), a)
	}
	if len(*p) > before {
		return false
	}
	host := strings.ToLower(in.Name) + "." + cloud.VaultSuffix
	v := s.vaults[host]
	if v == nil {
		v = newVault(host, in.Name, cloud, s.now)
		v.polls = s.polls
		s.vaults[host] = v
	}
	v.tenant, v.policies, v.access = in.Tenant, in.Permissions == "policies", in.Access
	v.days, v.region = in.RecoverableDays, in.Region
	if v.days == 0 {
		v.days = 7
	}
	if v.region == "" {
		v.region = "uksouth"
	}
	return true
}

func (s *Server) loadObjects(seed *Seed, in Vault, place string, p *problems) {
	host := in.Name
	s.mu.RLock()
	if in.Cloud != "" {
		for _, c := range s.clouds {
			if strings.EqualFold(c.Name, in.Cloud) {
				host = in.Name + "." + c.VaultSuffix
			}
		}
	}
	s.mu.RUnlock()
	for i, x := range in.Secrets {
		if _, err := s.putSecret(seed, host, x); err != nil {
			p.add(fmt.Sprintf("%s.secrets[%d] (%s)", place, i, x.Name), "%w", err)
		}
	}
	for i, x := range in.Keys {
		if _, err := s.PutKey(host, x); err != nil {
			p.add(fmt.Sprintf("%s.keys[%d] (%s)", place, i, x.Name), "%w", err)
		}
	}
	for i, x := range in.Certificates {
		if _, err := s.putCertificate(seed, host, x); err != nil {
			p.add(fmt.Sprintf("%s.certificates[%d] (%s)", place, i, x.Name), "%w", err)
		}
	}
}
