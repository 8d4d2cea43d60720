package emulator

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"
)

// pending is a certificate that is being made.
type pending struct {
	made      *material
	versionID string
	attrs     attributesJSON
	state     pendingJSON
	left      int // how many more times it answers "in progress"; less than zero: until merged
}

type certificateRequest struct {
	Policy     *policyJSON       `json:"policy"`
	Attributes *attributesInput  `json:"attributes"`
	Tags       map[string]string `json:"tags"`
	Value      string            `json:"value"`
	Password   string            `json:"pwd"`
	Chain      []string          `json:"x5c"`
}

func (c *call) makeCertificate() (*material, *response) {
	var in certificateRequest
	if r := c.decode(&in); r != nil {
		return nil, r
	}
	if in.Policy == nil {
		return nil, badParameter("Property  has invalid value\r\n")
	}
	v := c.site.vault
	p := in.Policy
	p.fill(v.now().Unix())
	is, err := p.selfSign(v.now())
	if err != nil {
		return nil, badParameter("The certificate policy is not valid: " + err.Error())
	}
	leaf, err := x509.ParseCertificate(is.leaf)
	if err != nil {
		return nil, badParameter("The certificate policy is not valid: " + err.Error())
	}
	attrs := v.dates(leaf.NotBefore, leaf.NotAfter)
	in.Attributes.apply(&attrs)
	m, err := is.material(v, attrs, in.Tags)
	if err != nil {
		return nil, badParameter("The certificate policy is not valid: " + err.Error())
	}
	if in.Tags == nil {
		m.version.tags = nil
	}
	m.private = is.key
	m.csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: leaf.Subject, DNSNames: leaf.DNSNames, EmailAddresses: leaf.EmailAddresses}, is.key)
	if err != nil {
		return nil, badParameter("The certificate policy is not valid: " + err.Error())
	}
	return m, nil
}

// selfSign makes a key and a certificate by the policy.
func (p *policyJSON) selfSign(now time.Time) (*issued, error) {
	key, err := generate(p.Key.Kty, p.Key.Crv, p.Key.KeySize)
	if err != nil {
		return nil, err
	}
	t, err := p.template(now)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate: %w", err)
	}
	return &issued{key: key, leaf: der, policy: p}, nil
}

// importCertificate stores an upload as it came when it has no password; otherwise it is written anew without one.
func (c *call) importCertificate() (*material, *response) {
	var in certificateRequest
	if r := c.decode(&in); r != nil {
		return nil, r
	}
	is, contentType, err := readIssued(in.Value, in.Password)
	if err != nil {
		return nil, badParameter("The certificate could not be read: " + err.Error())
	}
	v := c.site.vault
	p := in.Policy
	if p == nil {
		p = &policyJSON{}
	}
	if p.Secret != nil && p.Secret.ContentType != "" && p.Secret.ContentType != contentType {
		return nil, badParameter(fmt.Sprintf("The certificate is of content type %s, but the policy says %s.", contentType, p.Secret.ContentType))
	}
	p.Secret = &secretPropsJSON{contentType}
	attrs := v.freshAttributes()
	is.policy = p
	is.describe(&attrs)
	p.fill(v.now().Unix())
	if in.Password == "" && p.exportable() {
		is.stored = strings.TrimSpace(in.Value)
		if contentType == contentPEM {
			is.stored = in.Value
		}
	}
	in.Attributes.apply(&attrs)
	m, err := is.material(v, attrs, in.Tags)
	if err != nil {
		return nil, badParameter("The certificate could not be stored: " + err.Error())
	}
	if in.Tags == nil {
		m.version.tags = nil
	}
	return m, nil
}

// describe fills the policy and the dates from the certificate, as far as it can be read.
func (is *issued) describe(attrs *attributesJSON) {
	p := is.policy
	if is.key != nil && p.Key == nil {
		yes, no := true, false
		d, err := newKeyData(is.key.Public(), false, nil)
		if err == nil {
			p.Key = &keyPropsJSON{Exportable: &yes, ReuseKey: &no, Kty: d.kty, KeySize: len(d.n) * 8, Crv: d.crv}
		}
	}
	leaf, err := x509.ParseCertificate(is.leaf)
	if err != nil {
		return
	}
	attrs.NotBefore, attrs.Expires = leaf.NotBefore.Unix(), leaf.NotAfter.Unix()
	if p.Issuer == nil {
		p.Issuer = &issuerJSON{Name: "Unknown"}
	}
	if p.X509 == nil {
		p.X509 = &x509PropsJSON{Subject: subjectText(leaf.Subject), EKUs: []string{}, KeyUsage: []string{},
			ValidityMonths: months(leaf.NotAfter.Sub(leaf.NotBefore)), BasicConstraints: &constraintsJSON{CA: leaf.IsCA}}
	}
}

// months is a validity as the service counts it: a year has 365 days.
func months(validity time.Duration) int {
	return max(1, int(math.Round(validity.Hours()/24*12/365)))
}

// subjectText writes a name as the service does: the last part first, S for the state.
func subjectText(n pkix.Name) string {
	parts := strings.Split(n.ToRDNSequence().String(), ",")
	for i, p := range parts {
		if strings.HasPrefix(p, "ST=") {
			parts[i] = "S" + p[2:]
		}
	}
	return strings.Join(parts, ", ")
}

const needsMerge = "Pending certificate created. Please Perform Merge to complete the request."

const inProgress = "Pending certificate created. Certificate request is in progress. This may take some time based on the issuer provider. Please check again later."

// startPending answers 202; the certificate is there after as many polls as Server.SetPolls says, and at once for everything but polls.
func (c *call) startPending(m *material) *response {
	v, name := c.site.vault, c.route.name
	o := v.add(certificates, name, nil)
	o.policy = m.policy
	attrs := m.version.attrs
	attrs.Enabled = false
	o.pending = &pending{made: m, versionID: m.version.id, attrs: attrs, left: v.polls.pending, state: pendingJSON{
		ID: v.url("certificates", o.name, "pending"), Issuer: issuerJSON{Name: m.policy.Issuer.Name}, CSR: base64.StdEncoding.EncodeToString(m.csr),
		Status: "inProgress", StatusDetails: inProgress, RequestID: newVersionID()}}
	if strings.EqualFold(m.policy.Issuer.Name, "Unknown") {
		o.pending.left = -1
		o.pending.state.StatusDetails = needsMerge
	}
	answer := jsonResponse(http.StatusAccepted, o.pending.state)
	answer.header.Set("Location", fmt.Sprintf("%s?api-version=%s&request_id=%s", o.pending.state.ID, c.api, o.pending.state.RequestID))
	answer.header.Set("Retry-After", "10")
	if o.pending.left == 0 {
		v.complete(o)
	}
	return answer
}

func (v *vault) complete(o *object) {
	p := o.pending
	p.state.Status, p.state.StatusDetails, p.state.Target = "completed", "", v.url("certificates", o.name)
	p.left = 0
	v.addCertificate(o.name, p.made)
}

// pending answers for the operation that makes a certificate. The caller holds s.mu.
func (c *call) pending(o *object) *response {
	p := o.pending
	if p == nil {
		return errorResponse(http.StatusNotFound, "PendingCertificateNotFound", "", "Pending certificate not found: "+c.route.name)
	}
	switch c.route.method {
	case http.MethodDelete:
		o.pending = nil
		if len(o.versions) == 0 {
			delete(c.site.vault.live[certificates], strings.ToUpper(o.name))
		}
	case http.MethodPatch:
		var in struct {
			Cancel bool `json:"cancellation_requested"`
		}
		if r := c.decode(&in); r != nil {
			return r
		}
		p.state.CancellationRequested = in.Cancel
	default:
		if p.state.Status == "inProgress" && p.left == 0 {
			c.site.vault.complete(o)
		}
		if p.left > 0 {
			p.left--
		}
	}
	answer := jsonResponse(http.StatusOK, p.state)
	if p.state.Status == "inProgress" && c.route.method == http.MethodGet {
		answer.header.Set("Retry-After", "10")
	}
	return answer
}

// merge ends the making of a certificate that another authority signs.
func (c *call) merge(o *object) *response {
	var in certificateRequest
	if r := c.decode(&in); r != nil {
		return r
	}
	p := o.pending
	if p == nil || p.state.Status != "inProgress" {
		return errorResponse(http.StatusNotFound, "PendingCertificateNotFound", "", "Pending certificate not found: "+c.route.name)
	}
	is := &issued{policy: o.policy}
	for i, text := range in.Chain {
		der, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return badParameter("Property  has invalid value\r\n")
		}
		if i == 0 {
			is.leaf = der
		} else {
			is.chain = append(is.chain, der)
		}
	}
	leaf, err := x509.ParseCertificate(is.leaf)
	if err != nil {
		return badParameter("Property  has invalid value\r\n")
	}
	is.key = p.made.private
	if pub, ok := is.key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(leaf.PublicKey) {
		return badParameter("The public key of the end-entity certificate in the request does not match the public key of the pending certificate.")
	}
	v := c.site.vault
	m, err := is.material(v, v.dates(leaf.NotBefore, leaf.NotAfter), p.made.secret.tags)
	if err != nil {
		return badParameter("Property  has invalid value\r\n")
	}
	m.version.tags = p.made.version.tags
	m.version.id, m.secret.id, m.key.id = p.versionID, p.versionID, p.versionID
	p.made = m
	v.complete(o)
	answer := c.bundle(o, m.version, shape{})
	answer.status = http.StatusCreated
	answer.header.Set("Location", v.url("certificates", o.name, m.version.id)+"?api-version="+c.api)
	return answer
}

// policy answers for a certificate's policy. The caller holds s.mu.
func (c *call) policy(o *object) *response {
	if c.route.method == http.MethodPatch {
		var in policyJSON
		if r := c.decode(&in); r != nil {
			return r
		}
		if o.policy == nil {
			return c.notFound()
		}
		changed := *o.policy
		changed.merge(&in, c.site.vault.now().Unix())
		o.policy = &changed
	}
	if o.policy == nil {
		return c.notFound()
	}
	return jsonResponse(http.StatusOK, o.shownPolicy(c.site.vault))
}
