package emulator

import (
	"crypto"
	"net/http"
)

// material is a version made before the lock is taken, since a key takes time.
type material struct {
	version *version
	// the rest is for certificates: the key and secret that come with it.
	key    *version
	secret *version
	policy *policyJSON
	// private and csr are there while the certificate is being made.
	private crypto.Signer
	csr     []byte
}

// make builds what the request wants to store; nil, nil if it stores nothing.
func (c *call) make() (*material, *response) {
	switch {
	case c.route.op == opSet:
		return c.makeSecret()
	case c.route.kind == keys && (c.route.op == opCreate || c.route.op == opImport):
		return c.makeKey()
	case c.route.kind == certificates && c.route.op == opCreate:
		return c.makeCertificate()
	case c.route.kind == certificates && c.route.op == opImport:
		return c.importCertificate()
	}
	return nil, nil
}

type secretRequest struct {
	Value       *string           `json:"value"`
	ContentType string            `json:"contentType"`
	Attributes  *attributesInput  `json:"attributes"`
	Tags        map[string]string `json:"tags"`
}

// maxSecret is the largest value, in bytes (Key Vault documentation, "about secrets").
const maxSecret = 25 << 10

func (c *call) makeSecret() (*material, *response) {
	var in secretRequest
	if r := c.decode(&in); r != nil {
		return nil, r
	}
	switch {
	case in.Value == nil:
		return nil, badParameter("Property  has invalid value\r\n")
	case len(*in.Value) > maxSecret:
		return nil, badParameter("The secret value is longer than 25600 characters.")
	}
	ver := &version{id: newVersionID(), attrs: c.site.vault.freshAttributes(), tags: in.Tags, secret: &secretData{value: *in.Value, contentType: in.ContentType}}
	in.Attributes.apply(&ver.attrs)
	return &material{version: ver}, nil
}

// create stores what make built. The caller holds s.mu.
func (c *call) create(m *material) *response {
	v, rt := c.site.vault, c.route
	if rt.kind != certificates {
		if o := v.find(rt.kind, rt.name); o != nil && o.newest().managed {
			return errorResponse(http.StatusConflict, "Conflict", "", rt.kind.title()+" "+rt.name+" belongs to a certificate and cannot be changed by itself.")
		}
		o := v.add(rt.kind, rt.name, m.version)
		return c.bundle(o, m.version, shape{value: true})
	}
	if rt.op == opImport {
		o := v.addCertificate(rt.name, m)
		return c.bundle(o, m.version, shape{})
	}
	return c.startPending(m)
}
