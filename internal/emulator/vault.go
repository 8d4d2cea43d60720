package emulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// answerVault checks in this order: token, api-version, name, rights, object. That a missing token wins is recorded; the
// rest of the order is a guess.
func (c *call) answerVault() *response {
	s := c.s
	s.mu.RLock()
	who, denied := c.authenticate()
	s.mu.RUnlock()
	if denied != nil {
		return denied
	}
	c.who = who
	if c.entry != nil {
		s.journal.caller(c.entry, who.appID)
	}
	if r := c.checkAPIVersion(); r != nil {
		return r
	}
	if c.route.op == opNone {
		return c.unknownRoute()
	}
	if c.route.name != "" && !validName.MatchString(c.route.name) {
		return badParameter("The request URI contains an invalid name: " + c.route.name)
	}
	if r := c.checkRights(); r != nil {
		return r
	}
	made, bad := c.make()
	if bad != nil {
		return bad
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.act(made)
}

func badParameter(message string) *response {
	return errorResponse(http.StatusBadRequest, "BadParameter", "", message)
}

func (c *call) checkAPIVersion() *response {
	all := apiVersions()
	switch {
	case c.api == "":
		return badParameter("api-version must be specified")
	case !apiAtLeast(c.api, all[0]):
		return badParameter(fmt.Sprintf("The specified version (%s) is not recognized. Consider using the latest supported version (%s).", c.api, all[len(all)-1]))
	}
	return nil
}

func (c *call) unknownRoute() *response {
	if c.route.kind == "" {
		return errorResponse(http.StatusNotFound, "NotFound", "", "The emulator serves nothing at this path.")
	}
	return errorResponse(http.StatusMethodNotAllowed, "MethodNotAllowed", "", "The emulator does not serve this operation.")
}

// act does what the route says. The caller holds s.mu; what takes long, such as a new key, was made before.
func (c *call) act(m *material) *response {
	v, rt := c.site.vault, c.route
	switch rt.op {
	case opList:
		return c.list(false)
	case opDeletedList:
		return c.list(true)
	case opVersions:
		return c.versions()
	case opDeletedGet, opRecover, opPurge:
		return c.actDeleted()
	}
	o := v.find(rt.kind, rt.name)
	if rt.op == opSet || rt.op == opImport || rt.op == opCreate {
		if v.deleted[rt.kind][strings.ToUpper(rt.name)] != nil {
			return errorResponse(http.StatusConflict, "Conflict", "ObjectIsDeletedButRecoverable", fmt.Sprintf("%s %s is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the secret can only be recovered or purged.", rt.kind.title(), rt.name))
		}
		return c.create(m)
	}
	if o == nil || o.settles() {
		return c.notFound()
	}
	switch rt.op {
	case opGet:
		return c.get(o)
	case opUpdate:
		return c.update(o)
	case opDelete:
		latest := o.newest()
		v.remove(o)
		return c.bundle(o, latest, shape{})
	case opPending:
		return c.pending(o)
	case opPolicy:
		return c.policy(o)
	case opMerge:
		return c.merge(o)
	}
	return c.unknownRoute()
}

// settles reports whether the object is not to be seen yet, and counts down.
func (o *object) settles() bool {
	if o.settling <= 0 {
		return false
	}
	o.settling--
	return true
}

func (c *call) notFound() *response {
	rt := c.route
	name := rt.name
	if rt.version != "" {
		name += "/" + rt.version
	}
	return errorResponse(http.StatusNotFound, rt.kind.title()+"NotFound", "", fmt.Sprintf("A %s with (name/id) %s was not found in this key vault. If you recently deleted this %s you may be able to recover it using the correct recovery command. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182",
		rt.kind.noun(), name, rt.kind.noun()))
}

func (c *call) actDeleted() *response {
	v, rt := c.site.vault, c.route
	o := v.deleted[rt.kind][strings.ToUpper(rt.name)]
	if o == nil && rt.op == opRecover {
		return c.notFound()
	}
	if o == nil || o.settles() {
		return errorResponse(http.StatusNotFound, rt.kind.title()+"NotFound", "", fmt.Sprintf("Deleted %s not found: %s", rt.kind.title(), rt.name))
	}
	switch rt.op {
	case opRecover:
		v.recover(o)
	case opPurge:
		v.purge(o)
		return &response{status: http.StatusNoContent, header: http.Header{}}
	}
	return c.bundle(o, o.newest(), shape{})
}

func (c *call) get(o *object) *response {
	ver := o.version(c.route.version)
	if ver == nil && !(o.kind == certificates && o.pending != nil && c.route.version == "") {
		return c.notFound()
	}
	if o.kind == secrets && !ver.attrs.Enabled {
		return errorResponse(http.StatusForbidden, "Forbidden", "SecretDisabled", "Operation get is not allowed on a disabled secret.")
	}
	return c.bundle(o, ver, shape{value: true, byVersion: c.route.version != ""})
}

// updateRequest is the body of PATCH; what is absent stays as it is.
type updateRequest struct {
	ContentType *string           `json:"contentType"`
	Attributes  *attributesInput  `json:"attributes"`
	Tags        map[string]string `json:"tags"`
	KeyOps      []string          `json:"key_ops"`
	Policy      *policyJSON       `json:"policy"`
}

type attributesInput struct {
	Enabled    *bool  `json:"enabled"`
	NotBefore  *int64 `json:"nbf"`
	Expires    *int64 `json:"exp"`
	Exportable *bool  `json:"exportable"`
}

func (in *attributesInput) apply(a *attributesJSON) {
	if in == nil {
		return
	}
	if in.Enabled != nil {
		a.Enabled = *in.Enabled
	}
	if in.NotBefore != nil {
		a.NotBefore = *in.NotBefore
	}
	if in.Expires != nil {
		a.Expires = *in.Expires
	}
	if in.Exportable != nil {
		a.Exportable = in.Exportable
	}
}

func (c *call) decode(into any) *response {
	if err := json.Unmarshal(c.body, into); err != nil {
		// The text is a recorded one; both blanks belong to it.
		return badParameter("Property  has invalid value\r\n")
	}
	return nil
}

func (c *call) update(o *object) *response {
	var in updateRequest
	if r := c.decode(&in); r != nil {
		return r
	}
	ver := o.version(c.route.version)
	if ver == nil {
		return c.notFound()
	}
	v := c.site.vault
	for _, d := range v.dependents(v.live, o) {
		part := d.version(ver.id)
		if part == nil {
			continue
		}
		if o.kind == certificates && in.Attributes != nil {
			// A certificate's dates are those of X.509: the service takes others and ignores them.
			in.Attributes.NotBefore, in.Attributes.Expires = nil, nil
		}
		in.Attributes.apply(&part.attrs)
		part.attrs.Updated = v.now().Unix()
		if in.Tags != nil {
			part.tags = in.Tags
		}
	}
	if in.ContentType != nil && ver.secret != nil {
		ver.secret.contentType = *in.ContentType
	}
	if in.KeyOps != nil && ver.key != nil {
		ver.key.ops = in.KeyOps
	}
	if in.Policy != nil && o.policy != nil {
		changed := *o.policy
		changed.merge(in.Policy, v.now().Unix())
		o.policy = &changed
	}
	return c.bundle(o, ver, shape{byVersion: c.route.version != ""})
}

// A shape says which members of a bundle an answer has.
type shape struct {
	value     bool // a secret's value
	byVersion bool // the request named a version: certificates come without policy
}

func (c *call) bundle(o *object, ver *version, sh shape) *response {
	return jsonResponse(http.StatusOK, c.bundleJSON(o, ver, sh))
}

func (c *call) bundleJSON(o *object, ver *version, sh shape) any {
	v := c.site.vault
	switch o.kind {
	case secrets:
		b := secretJSON{deletedJSON: o.deletion, ContentType: ver.secret.contentType, ID: v.url("secrets", o.name, ver.id), Managed: ver.managed,
			Attributes: v.attributes(ver.attrs, c.api), Tags: ver.tags, KID: v.absolute(ver.secret.kid)}
		if sh.value {
			b.Value = &ver.secret.value
		}
		return b
	case keys:
		b := keyJSON{deletedJSON: o.deletion, Key: ver.key.public(v.url("keys", o.name, ver.id)),
			Attributes: v.attributes(ver.attrs, c.api), Tags: ver.tags, Managed: ver.managed}
		if o.deletion == nil {
			b.ReleasePolicy = ver.key.release
		}
		return b
	}
	return c.certificateBundle(o, ver, sh)
}

// absolute makes a URL of a path in this vault, and leaves URLs and "" alone.
func (v *vault) absolute(ref string) string {
	if ref == "" || strings.Contains(ref, "://") {
		return ref
	}
	return v.url(ref)
}
