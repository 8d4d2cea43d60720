package emulator

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// vault finds a vault by name (in the public cloud) or host name. The caller holds s.mu.
func (s *Server) vault(nameOrHost string) (*vault, error) {
	host := strings.ToLower(nameOrHost)
	if !strings.Contains(host, ".") {
		host += "." + s.clouds[0].VaultSuffix
	}
	if v := s.vaults[host]; v != nil {
		return v, nil
	}
	return nil, fmt.Errorf("there is no vault %q: add it to the seed", nameOrHost)
}

// free reports whether a version may be stored under the name: not while the object is deleted but not purged.
func (v *vault) free(k kind, name string) error {
	if v.deleted[k][strings.ToUpper(name)] != nil {
		return fmt.Errorf("the %s is deleted: recover or purge it first", k.noun())
	}
	return nil
}

// PutSecret adds the versions of a secret to a vault, named by name or host, and returns the id of the newest.
func (s *Server) PutSecret(vault string, in Secret) (version string, err error) {
	return s.putSecret(&Seed{}, vault, in)
}

func (s *Server) putSecret(seed *Seed, vaultName string, in Secret) (string, error) {
	if !validName.MatchString(in.Name) {
		return "", fmt.Errorf("name %q: use 1 to 127 letters, digits and hyphens", in.Name)
	}
	all := in.Versions
	if len(all) == 0 {
		all = []SecretVersion{in.SecretVersion}
	} else if in.Value != "" || in.ValueFile != "" {
		return "", errors.New("value and versions are both given: put the value into the last version")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.vault(vaultName)
	if err != nil {
		return "", err
	}
	if err := v.free(secrets, in.Name); err != nil {
		return "", err
	}
	last := ""
	for i, sv := range all {
		value, err := seed.content(sv.Value, sv.ValueFile)
		if err != nil {
			return "", fmt.Errorf("versions[%d]: %w", i, err)
		}
		ver := &version{id: sv.ID, attrs: v.freshAttributes(), tags: sv.Tags, managed: sv.Managed,
			secret: &secretData{value: value, contentType: sv.ContentType, kid: sv.KID}}
		if ver.id == "" {
			ver.id = newVersionID()
		}
		if !validVersion.MatchString(ver.id) {
			return "", fmt.Errorf("versions[%d].id %q: use 32 lower-case hex digits", i, ver.id)
		}
		if sv.Managed && sv.Tags == nil {
			ver.tags = map[string]string{}
		}
		ver.attrs.Enabled = sv.Enabled == nil || *sv.Enabled
		setTime(&ver.attrs.Created, sv.Created)
		setTime(&ver.attrs.Updated, sv.Created)
		setTime(&ver.attrs.NotBefore, sv.NotBefore)
		setTime(&ver.attrs.Expires, sv.Expires)
		v.add(secrets, in.Name, ver)
		last = ver.id
	}
	return last, nil
}

func setTime(to *int64, t time.Time) {
	if !t.IsZero() {
		*to = t.Unix()
	}
}

// PutKey adds a version of a key and returns its id.
func (s *Server) PutKey(vault string, in Key) (version string, err error) {
	if !validName.MatchString(in.Name) {
		return "", fmt.Errorf("name %q: use 1 to 127 letters, digits and hyphens", in.Name)
	}
	if in.Type == "" {
		in.Type = "RSA"
	}
	var d *keyData
	if in.PublicKey != "" {
		d, err = readPublicKey(in.PublicKey, strings.HasSuffix(in.Type, "-HSM"))
	} else {
		d, err = generateKeyData(in.Type, in.Curve, in.Size, nil)
	}
	if err != nil {
		return "", err
	}
	return s.putKeyData(vault, in, d)
}

func readPublicKey(text string, hsm bool) (*keyData, error) {
	b, _ := pem.Decode([]byte(text))
	if b == nil {
		return nil, errors.New("publicKey is not PEM: use a block of type PUBLIC KEY")
	}
	pub, err := x509.ParsePKIXPublicKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading publicKey: %w", err)
	}
	return newKeyData(pub, hsm, nil)
}

func (s *Server) putKeyData(vaultName string, in Key, d *keyData) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.vault(vaultName)
	if err != nil {
		return "", err
	}
	if err := v.free(keys, in.Name); err != nil {
		return "", err
	}
	ver := &version{id: newVersionID(), attrs: v.freshAttributes(), tags: in.Tags, key: d}
	ver.attrs.Enabled = in.Enabled == nil || *in.Enabled
	ver.attrs.Exportable = new(bool)
	v.add(keys, in.Name, ver)
	return ver.id, nil
}

// PutCertificate adds a version of a certificate, with its secret and key, and returns its id.
func (s *Server) PutCertificate(vault string, in Certificate) (version string, err error) {
	return s.putCertificate(&Seed{}, vault, in)
}

func (s *Server) putCertificate(seed *Seed, vaultName string, in Certificate) (string, error) {
	if !validName.MatchString(in.Name) {
		return "", fmt.Errorf("name %q: use 1 to 127 letters, digits and hyphens", in.Name)
	}
	now := s.now()
	value, err := seed.content(in.Value, in.File)
	if err != nil {
		return "", err
	}
	var is *issued
	if value != "" {
		is, err = in.imported(value)
	} else {
		is, err = in.selfSigned(now)
	}
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.vault(vaultName)
	if err != nil {
		return "", err
	}
	for _, k := range []kind{certificates, secrets, keys} {
		if err := v.free(k, in.Name); err != nil {
			return "", err
		}
	}
	attrs := v.freshAttributes()
	is.describe(&attrs)
	is.policy.fill(now.Unix())
	attrs.Enabled = in.Enabled == nil || *in.Enabled
	m, err := is.material(v, attrs, in.Tags)
	if err != nil {
		return "", err
	}
	m.version.tags = in.Tags
	v.addCertificate(in.Name, m)
	return m.version.id, nil
}

// imported keeps the file's bytes as the secret's value unless there is a password to take off.
func (in *Certificate) imported(value string) (*issued, error) {
	is, contentType, err := readIssued(value, in.Password)
	if err != nil {
		return nil, fmt.Errorf("%w: use PEM text, or a PFX (in base64 or as it is)", err)
	}
	if in.ContentType != "" && in.ContentType != contentType {
		return nil, fmt.Errorf("contentType %q does not fit the file, which is %s", in.ContentType, contentType)
	}
	is.policy = &policyJSON{Secret: &secretPropsJSON{contentType}}
	if in.Exportable != nil && !*in.Exportable {
		is.policy.Key = &keyPropsJSON{Exportable: in.Exportable}
		return is, nil
	}
	if in.Password == "" {
		is.stored = value
		if contentType == contentPFX {
			if _, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value)); err != nil {
				is.stored = base64.StdEncoding.EncodeToString([]byte(value))
			} else {
				is.stored = strings.TrimSpace(value)
			}
		}
	}
	return is, nil
}

// selfSigned makes a certificate, under as many parents as asked for.
func (in *Certificate) selfSigned(now time.Time) (*issued, error) {
	if in.Subject == "" {
		in.Subject = "CN=" + in.Name
	}
	if in.ContentType != "" && in.ContentType != contentPFX && in.ContentType != contentPEM {
		return nil, fmt.Errorf("contentType %q: use %s or %s", in.ContentType, contentPFX, contentPEM)
	}
	if in.Parents < 0 || in.Parents > 8 {
		return nil, fmt.Errorf("parents: %d is not between 0 and 8", in.Parents)
	}
	no := false
	p := &policyJSON{Key: &keyPropsJSON{Kty: in.KeyType, Crv: in.Curve, KeySize: in.KeySize, Exportable: in.Exportable, ReuseKey: &no},
		Secret: &secretPropsJSON{in.ContentType}, X509: &x509PropsJSON{Subject: in.Subject, ValidityMonths: in.Months}}
	if len(in.DNSNames) > 0 {
		p.X509.SANs = &sansJSON{DNSNames: in.DNSNames}
	}
	p.fill(now.Unix())
	if in.Parents == 0 {
		return p.selfSign(now)
	}
	return p.signUnder(in.Parents, now)
}

// signUnder makes a root, the authorities below it, and the leaf. The chain goes upwards.
func (p *policyJSON) signUnder(parents int, now time.Time) (*issued, error) {
	is := &issued{policy: p}
	var above *x509.Certificate
	var aboveKey crypto.Signer
	for i := range parents {
		key, err := generate("EC", "", 0)
		if err != nil {
			return nil, err
		}
		t := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano() + int64(i)), Subject: pkix.Name{CommonName: fmt.Sprintf("Emulated authority %d of %s", i, p.X509.Subject)},
			NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
		signer, signerKey := above, aboveKey
		if signer == nil {
			signer, signerKey = t, key
		}
		der, err := x509.CreateCertificate(rand.Reader, t, signer, key.Public(), signerKey)
		if err != nil {
			return nil, fmt.Errorf("signing an authority: %w", err)
		}
		if above, err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("reading an authority: %w", err)
		}
		aboveKey = key
		is.chain = append([][]byte{der}, is.chain...)
	}
	t, err := p.template(now)
	if err != nil {
		return nil, err
	}
	if is.key, err = generate(p.Key.Kty, p.Key.Crv, p.Key.KeySize); err != nil {
		return nil, err
	}
	if is.leaf, err = x509.CreateCertificate(rand.Reader, t, above, is.key.Public(), aboveKey); err != nil {
		return nil, fmt.Errorf("signing the certificate: %w", err)
	}
	return is, nil
}
