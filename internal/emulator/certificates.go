package emulator

import (
	"crypto"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

const (
	contentPFX = "application/x-pkcs12"
	contentPEM = "application/x-pem-file"
)

// certData is the leaf, in DER.
type certData struct {
	chain [][]byte // what came with it
	der   []byte
}

// thumbprint is what the service calls x5t: SHA-1 of the DER, by RFC 7517 4.8.
func (d *certData) thumbprint() string {
	sum := sha1.Sum(d.der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (c *call) certificateBundle(o *object, ver *version, sh shape) certificateJSON {
	v := c.site.vault
	if ver == nil { // not issued yet
		return certificateJSON{deletedJSON: o.deletion, ID: v.url("certificates", o.name, o.pending.versionID),
			Attributes: v.attributes(o.pending.attrs, c.api), Tags: o.pending.made.version.tags, Policy: o.shownPolicy(v), Pending: o.shownPending(v)}
	}
	b := certificateJSON{deletedJSON: o.deletion, ID: v.url("certificates", o.name, ver.id),
		KID: v.url("keys", o.name, ver.id), SID: v.url("secrets", o.name, ver.id),
		X5T: ver.cert.thumbprint(), Cer: base64.StdEncoding.EncodeToString(ver.cert.der),
		Attributes: v.attributes(ver.attrs, c.api), Tags: ver.tags}
	if !sh.byVersion {
		b.Policy, b.Pending = o.shownPolicy(v), o.shownPending(v)
	}
	return b
}

func (o *object) shownPolicy(v *vault) *policyJSON {
	if o.policy == nil {
		return nil
	}
	p := *o.policy
	p.ID = v.url("certificates", o.name, "policy")
	return &p
}

func (o *object) shownPending(v *vault) *idJSON {
	if o.pending == nil {
		return nil
	}
	return &idJSON{v.url("certificates", o.name, "pending")}
}

// fill completes a policy with what the service adds to it.
func (p *policyJSON) fill(now int64) {
	yes, no := true, false
	if p.Key == nil {
		p.Key = &keyPropsJSON{Exportable: &yes, Kty: "RSA", KeySize: 2048, ReuseKey: &no}
	}
	if p.Key.Kty == "" {
		p.Key.Kty = "RSA"
	}
	if strings.HasPrefix(p.Key.Kty, "RSA") && p.Key.KeySize == 0 {
		p.Key.KeySize = 2048
	}
	if strings.HasPrefix(p.Key.Kty, "EC") && p.Key.Crv == "" {
		p.Key.Crv = "P-256"
	}
	if p.Key.Exportable == nil {
		p.Key.Exportable = &yes
	}
	if p.Key.ReuseKey == nil {
		p.Key.ReuseKey = &no
	}
	if p.Secret == nil || p.Secret.ContentType == "" {
		p.Secret = &secretPropsJSON{contentPFX}
	}
	if p.X509 == nil {
		p.X509 = &x509PropsJSON{}
	}
	if p.X509.EKUs == nil {
		p.X509.EKUs = []string{"1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"}
	}
	if p.X509.KeyUsage == nil {
		p.X509.KeyUsage = []string{"digitalSignature", "keyEncipherment"}
	}
	if p.X509.ValidityMonths == 0 {
		p.X509.ValidityMonths = 12
	}
	if p.X509.BasicConstraints == nil {
		p.X509.BasicConstraints = &constraintsJSON{}
	}
	if p.LifetimeActions == nil {
		p.LifetimeActions = lifetime("AutoRenew")
		if p.Issuer != nil && strings.EqualFold(p.Issuer.Name, "Unknown") {
			p.LifetimeActions = lifetime("EmailContacts")
		}
	}
	if p.Issuer == nil || p.Issuer.Name == "" {
		p.Issuer = &issuerJSON{Name: "Self"}
	}
	p.Attributes = &policyAttrsJSON{Enabled: true, Created: now, Updated: now}
}

// lifetime is what happens, by default, when four fifths of a certificate's time have passed.
func lifetime(action string) []lifetimeActionJSON {
	return []lifetimeActionJSON{{Trigger: map[string]int{"lifetime_percentage": 80}, Action: map[string]string{"action_type": action}}}
}

// clone is a copy that can be filled while the original is served.
func (p *policyJSON) clone() *policyJSON {
	c := *p
	if p.Key != nil {
		k := *p.Key
		c.Key = &k
	}
	if p.X509 != nil {
		x := *p.X509
		c.X509 = &x
	}
	return &c
}

// merge takes over the parts that in has.
func (p *policyJSON) merge(in *policyJSON, now int64) {
	if in.Key != nil {
		p.Key = in.Key
	}
	if in.Secret != nil {
		p.Secret = in.Secret
	}
	if in.X509 != nil {
		p.X509 = in.X509
	}
	if in.LifetimeActions != nil {
		p.LifetimeActions = in.LifetimeActions
	}
	if in.Issuer != nil {
		p.Issuer = in.Issuer
	}
	if p.Attributes != nil {
		attrs := *p.Attributes
		attrs.Updated = now
		p.Attributes = &attrs
	}
}

// keyOps are the operations of a key that a certificate brings, by the certificate's usages.
func (p *policyJSON) keyOps() []string {
	ops := []string{}
	for _, u := range []struct {
		usage string
		ops   []string
	}{{"digitalSignature", []string{"sign", "verify"}}, {"keyEncipherment", []string{"wrapKey", "unwrapKey"}}, {"dataEncipherment", []string{"encrypt", "decrypt"}}} {
		if slices.Contains(p.X509.KeyUsage, u.usage) {
			ops = append(ops, u.ops...)
		}
	}
	return ops
}

// exportable: HSM keys never are.
func (p *policyJSON) exportable() bool {
	return *p.Key.Exportable && !strings.HasSuffix(p.Key.Kty, "-HSM")
}

func keyUsage(names []string) x509.KeyUsage {
	bits := map[string]x509.KeyUsage{"digitalSignature": x509.KeyUsageDigitalSignature, "nonRepudiation": x509.KeyUsageContentCommitment,
		"keyEncipherment": x509.KeyUsageKeyEncipherment, "dataEncipherment": x509.KeyUsageDataEncipherment, "keyAgreement": x509.KeyUsageKeyAgreement,
		"keyCertSign": x509.KeyUsageCertSign, "cRLSign": x509.KeyUsageCRLSign, "encipherOnly": x509.KeyUsageEncipherOnly, "decipherOnly": x509.KeyUsageDecipherOnly}
	var all x509.KeyUsage
	for _, n := range names {
		all |= bits[n]
	}
	return all
}

// template is the certificate that a policy describes. Its start is ten minutes back, as the service does.
func (p *policyJSON) template(now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	subject, err := parseSubject(p.X509.Subject)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: now.Add(-10 * time.Minute).Truncate(time.Second),
		NotAfter: now.AddDate(0, p.X509.ValidityMonths, 0).Truncate(time.Second),
		KeyUsage: keyUsage(p.X509.KeyUsage), BasicConstraintsValid: true, IsCA: p.X509.BasicConstraints.CA}
	if p.X509.SANs != nil {
		t.DNSNames, t.EmailAddresses = p.X509.SANs.DNSNames, p.X509.SANs.Emails
	}
	for _, text := range p.X509.EKUs {
		var oid asn1.ObjectIdentifier
		for _, arc := range strings.Split(text, ".") {
			n, ok := new(big.Int).SetString(arc, 10)
			if !ok || !n.IsInt64() || n.Sign() < 0 || n.Int64() > 1<<31-1 {
				return nil, fmt.Errorf("extended key usage %q is not an object identifier", text)
			}
			oid = append(oid, int(n.Int64()))
		}
		if len(oid) < 3 || oid[0] > 2 || oid[0] < 2 && oid[1] > 39 {
			return nil, fmt.Errorf("extended key usage %q is not an object identifier", text)
		}
		t.UnknownExtKeyUsage = append(t.UnknownExtKeyUsage, oid)
	}
	return t, nil
}

// parseSubject reads names of the form CN=a, O=b (RFC 4514 without escapes).
func parseSubject(text string) (pkix.Name, error) {
	var n pkix.Name
	for _, part := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return n, fmt.Errorf("subject %q is not of the form CN=name, O=organisation", text)
		}
		switch strings.ToUpper(key) {
		case "CN":
			n.CommonName = value
		case "O":
			n.Organization = append(n.Organization, value)
		case "OU":
			n.OrganizationalUnit = append(n.OrganizationalUnit, value)
		case "C":
			n.Country = append(n.Country, value)
		case "L":
			n.Locality = append(n.Locality, value)
		case "ST", "S":
			n.Province = append(n.Province, value)
		default:
			return n, fmt.Errorf("subject %q has the part %q: use CN, O, OU, C, L, ST", text, key)
		}
	}
	return n, nil
}

// issued is a certificate with its key and chain, before it is a version.
type issued struct {
	key    crypto.Signer
	leaf   []byte   // DER
	chain  [][]byte // DER, in the order uploaded
	policy *policyJSON
	stored string // the secret's exact value; empty: made from the above
}

// material makes the three versions, which share one id.
func (is *issued) material(v *vault, attrs attributesJSON, tags map[string]string) (*material, error) {
	value := is.stored
	if value == "" {
		var err error
		if value, err = is.encode(); err != nil {
			return nil, err
		}
	}
	if tags == nil {
		tags = map[string]string{}
	}
	id := newVersionID()
	m := &material{policy: is.policy}
	m.version = &version{id: id, attrs: attrs, tags: tags, cert: &certData{der: is.leaf, chain: is.chain}}
	m.secret = &version{id: id, attrs: attrs, tags: tags, managed: true, secret: &secretData{value: value, contentType: is.policy.Secret.ContentType}}
	m.key = &version{id: id, attrs: attrs, tags: tags, managed: true, key: &keyData{kty: is.policy.Key.Kty, ops: is.policy.keyOps()}}
	if is.key != nil {
		d, err := newKeyData(is.key.Public(), strings.HasSuffix(is.policy.Key.Kty, "-HSM"), is.policy.keyOps())
		if err != nil {
			return nil, err
		}
		m.key.key = d
	}
	return m, nil
}

// addCertificate stores a certificate's new version with its secret and key. The caller holds s.mu.
func (v *vault) addCertificate(name string, m *material) *object {
	o := v.add(certificates, name, m.version)
	o.policy = m.policy
	m.secret.secret.kid = "keys/" + o.name + "/" + m.version.id
	v.add(secrets, o.name, m.secret)
	v.add(keys, o.name, m.key)
	return o
}

// dates are attributes that mirror the X.509 dates.
func (v *vault) dates(notBefore, notAfter time.Time) attributesJSON {
	a := v.freshAttributes()
	a.NotBefore, a.Expires = notBefore.Unix(), notAfter.Unix()
	return a
}
