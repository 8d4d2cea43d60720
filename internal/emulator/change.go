package emulator

import (
	"fmt"
	"slices"
	"strings"
)

// object finds a live object for a change from outside. The caller holds s.mu.
func (s *Server) object(vaultName, kindName, name string) (*vault, *object, error) {
	v, err := s.vault(vaultName)
	if err != nil {
		return nil, nil, err
	}
	k := kind(kindName)
	if v.live[k] == nil {
		return nil, nil, fmt.Errorf("unknown kind %q: use secrets, keys or certificates", kindName)
	}
	o := v.find(k, name)
	if o == nil {
		return nil, nil, fmt.Errorf("vault %s has no %s %q", v.name, k.noun(), name)
	}
	return v, o, nil
}

// SetEnabled enables or disables a version ("" is the newest) of an object of a kind: "secrets", "keys" or "certificates". A certificate's secret and key follow it.
func (s *Server) SetEnabled(vault, kind, name, version string, enabled bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, o, err := s.object(vault, kind, name)
	if err != nil {
		return err
	}
	ver := o.version(version)
	if ver == nil {
		return fmt.Errorf("%s %q has no version %q", o.kind.noun(), name, version)
	}
	for _, d := range v.dependents(v.live, o) {
		if part := d.version(ver.id); part != nil {
			part.attrs.Enabled, part.attrs.Updated = enabled, v.now().Unix()
		}
	}
	return nil
}

// Delete makes an object deleted but recoverable, as a DELETE request does.
func (s *Server) Delete(vault, kind, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, o, err := s.object(vault, kind, name)
	if err != nil {
		return err
	}
	v.remove(o)
	return nil
}

// RotateCertificate adds a version with a new key by the certificate's own policy, and as many parents as before, and returns its id.
func (s *Server) RotateCertificate(vaultName, name string) (string, error) {
	s.mu.RLock()
	_, o, err := s.object(vaultName, string(certificates), name)
	if err != nil {
		s.mu.RUnlock()
		return "", err
	}
	if o.policy == nil || o.newest() == nil {
		s.mu.RUnlock()
		return "", fmt.Errorf("certificate %q is not issued yet", name)
	}
	p, parents, tags := o.policy.clone(), len(o.newest().cert.chain), o.newest().tags
	s.mu.RUnlock()
	now := s.now()
	p.fill(now.Unix())
	var is *issued
	if parents > 0 {
		is, err = p.signUnder(parents, now)
	} else {
		is, err = p.selfSign(now)
	}
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, _, err := s.object(vaultName, string(certificates), name)
	if err != nil {
		return "", err
	}
	attrs := v.freshAttributes()
	is.describe(&attrs)
	m, err := is.material(v, attrs, tags)
	if err != nil {
		return "", err
	}
	m.version.tags = tags
	v.addCertificate(name, m)
	return m.version.id, nil
}

// RotateKey adds a version of a key with the type, curve and size of the newest, and returns its id.
func (s *Server) RotateKey(vaultName, name string) (string, error) {
	s.mu.RLock()
	_, o, err := s.object(vaultName, string(keys), name)
	if err != nil {
		s.mu.RUnlock()
		return "", err
	}
	last := *o.newest()
	s.mu.RUnlock()
	if last.managed {
		return "", fmt.Errorf("key %q belongs to a certificate: rotate that", name)
	}
	d, err := generateKeyData(last.key.kty, last.key.crv, len(last.key.n)*8, last.key.ops)
	if err != nil {
		return "", err
	}
	return s.putKeyData(vaultName, Key{Name: name, Tags: last.tags}, d)
}

// SetAccess replaces a vault's access list. nil lets every application of the tenant in; an empty list, nobody.
func (s *Server) SetAccess(vault string, access []Access) error {
	var p problems
	for i, a := range access {
		checkRights(&p, fmt.Sprintf("access[%d]", i), a)
	}
	if len(p) > 0 {
		return p[0]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.vault(vault)
	if err != nil {
		return err
	}
	v.access = slices.Clone(access)
	if access != nil && v.access == nil {
		v.access = []Access{}
	}
	return nil
}

// SetPolls says how many times what the service takes its time for is "not yet": pending is how many polls of a new certificate answer "in
// progress", settle how many reads of a deleted or recovered object answer 404. It holds for later changes of all vaults.
func (s *Server) SetPolls(pending, settle int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.polls = polls{pending, settle}
	for _, v := range s.vaults {
		v.polls = s.polls
	}
}

// Hosts are the host names that the emulator answers for, sorted.
func (s *Server) Hosts() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []string
	for h := range s.vaults {
		all = append(all, h)
	}
	for _, c := range s.clouds {
		all = append(append(all, c.Authority), c.Aliases...)
	}
	for _, is := range s.issuers {
		all = append(all, is.host)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// issuerFor finds the issuer to sign with: the one named, or the only one.
func (s *Server) issuerFor(url string) (*Issuer, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var urls []string
	for u, is := range s.issuers {
		if u == url || url == "" && len(s.issuers) == 1 {
			return is, nil
		}
		urls = append(urls, u)
	}
	slices.Sort(urls)
	return nil, fmt.Errorf("issuer %q is not one of the seed's: %s", url, strings.Join(urls, ", "))
}
