package emulator

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"strings"
)

// A tenant is a directory of applications, by lower-cased client id. Guarded by Server.mu.
type tenant struct {
	id   string
	apps map[string]*App
}

// identity is who a verified access token speaks for.
type identity struct {
	appID    string
	objectID string
	issuer   string
}

// challenge is the answer to a token that is missing or not good: it says where a good one can be had.
func (c *call) challenge(message string) *response {
	v := c.site.vault
	r := errorResponse(http.StatusUnauthorized, "Unauthorized", "", message)
	r.header.Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization="https://%s/%s", resource="%s"`, v.cloud.Authority, v.tenant, v.cloud.Resource))
	return r
}

// authenticate checks the bearer token. The caller holds s.mu. Texts without an AKV number are not recorded ones.
func (c *call) authenticate() (identity, *response) {
	v := c.site.vault
	scheme, token, _ := strings.Cut(c.r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return identity{}, c.challenge("AKV10000: Request is missing a Bearer or PoP token.")
	}
	p, err := parseJWT(strings.TrimSpace(token))
	if err != nil {
		return identity{}, c.challenge("Error validating token: the token is malformed.")
	}
	key := c.s.key()
	if p.header.Kid != keyID(key.Public()) || p.header.Alg != "RS256" || p.verify(key.Public()) != nil {
		return identity{}, c.challenge("AKV10046: Unable to resolve the key used for signature validation.")
	}
	if len(p.claims.Audience) != 1 || p.claims.Audience[0] != v.cloud.Resource {
		return identity{}, c.challenge(fmt.Sprintf("AKV10022: Invalid audience. Expected %s, found: %s.", v.cloud.Resource, strings.Join(p.claims.Audience, ", ")))
	}
	want := v.cloud.tokenIssuer(v.tenant)
	if p.claims.Issuer != want {
		return identity{}, c.challenge(fmt.Sprintf("AKV10032: Invalid issuer. Expected one of %s, found %s.", want, p.claims.Issuer))
	}
	now := c.s.now().Unix()
	if now >= p.claims.Expires || now < p.claims.NotBefore-300 {
		return identity{}, c.challenge("Error validating token: the token is outside its lifetime.")
	}
	return identity{p.claims.AppID, p.claims.ObjectID, p.claims.Issuer}, nil
}

func (c *Cloud) tokenIssuer(tenant string) string {
	return "https://" + c.STS + "/" + tenant + "/"
}

// accessToken signs a token of version 1.0 for an application.
func (s *Server) accessToken(cloud *Cloud, t *tenant, app *App, resource string) (string, error) {
	now := s.now()
	key := s.key()
	return signJWT(key, keyID(key.Public()), jwtClaims{
		Audience: audience{resource}, Issuer: cloud.tokenIssuer(t.id), Subject: app.ObjectID,
		IssuedAt: now.Unix(), NotBefore: now.Unix(), Expires: now.Add(s.lifetime).Unix(),
		AppID: app.ClientID, IDType: "app", ObjectID: app.ObjectID, TenantID: t.id, TokenID: newVersionID(), Version: "1.0",
	})
}

// Verbs of rights. A right is "<kind>/<verb>", "<kind>/*" or "*".
const (
	verbGet     = "get"
	verbList    = "list"
	verbSet     = "set" // set, create, import, update
	verbDelete  = "delete"
	verbRecover = "recover"
	verbPurge   = "purge"
)

func verbs() []string {
	return []string{verbGet, verbList, verbSet, verbDelete, verbRecover, verbPurge}
}

// verb is the right that the operation needs, and the last part of the RBAC data action.
func (rt route) verb() (verb, action string) {
	switch rt.op {
	case opGet, opDeletedGet:
		if rt.kind == secrets && rt.op == opGet {
			return verbGet, "getSecret/action"
		}
		return verbGet, rt.read()
	case opList, opVersions, opDeletedList:
		return verbList, rt.read()
	case opSet:
		return verbSet, "setSecret/action"
	case opDelete:
		return verbDelete, "delete"
	case opRecover:
		return verbRecover, "recover/action"
	case opPurge:
		return verbPurge, "purge/action"
	case opPending, opPolicy:
		if rt.method == http.MethodGet {
			return verbGet, "read"
		}
		return verbSet, "update/action"
	}
	return verbSet, string(rt.op) + "/action"
}

func (rt route) read() string {
	if rt.kind == secrets {
		return "readMetadata/action"
	}
	return "read"
}

// checkRights answers 403 when no entry of the vault's access list covers the request.
func (c *call) checkRights() *response {
	c.s.mu.RLock()
	defer c.s.mu.RUnlock()
	v := c.site.vault
	if v.access == nil {
		return nil
	}
	verb, _ := c.route.verb()
	for _, a := range v.access {
		if a.covers(c.who.appID, c.route, verb) {
			return nil
		}
	}
	return c.forbidden()
}

// covers reports whether the entry lets the application do it.
func (a Access) covers(appID string, rt route, verb string) bool {
	if a.App != "*" && subtle.ConstantTimeCompare([]byte(strings.ToLower(a.App)), []byte(strings.ToLower(appID))) != 1 {
		return false
	}
	if len(a.Objects) > 0 {
		found := false
		for _, name := range a.Objects {
			found = found || strings.EqualFold(name, rt.name)
		}
		if !found {
			return false
		}
	}
	for _, right := range a.Allow {
		if right == "*" || right == string(rt.kind)+"/*" || right == string(rt.kind)+"/"+verb {
			return true
		}
	}
	return false
}

// forbidden is the answer of a vault with roles, or of one with access policies, to a caller without the right.
func (c *call) forbidden() *response {
	v, rt := c.site.vault, c.route
	caller := fmt.Sprintf("appid=%s;oid=%s;iss=%s", c.who.appID, c.who.objectID, c.who.issuer)
	verb, action := rt.verb()
	if v.policies {
		return errorResponse(http.StatusForbidden, "Forbidden", "AccessDenied", fmt.Sprintf("The user, group or application '%s' does not have %s %s permission on key vault '%s;location=%s'. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287",
			caller, rt.kind, verb, v.name, v.region))
	}
	resource := "/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/emulator/providers/microsoft.keyvault/vaults/" + strings.ToLower(v.name)
	if rt.name != "" {
		resource += "/" + string(rt.kind) + "/" + strings.ToLower(rt.name)
	}
	return errorResponse(http.StatusForbidden, "Forbidden", "ForbiddenByRbac", "Caller is not authorized to perform action on resource.\r\n"+
		"If role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\n"+
		"Caller: "+caller+"\r\n"+
		"Action: 'Microsoft.KeyVault/vaults/"+string(rt.kind)+"/"+action+"'\r\n"+
		"Resource: '"+resource+"'\r\n"+
		"Assignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: 'DeniedWithNoValidRBAC' \r\n"+
		"Vault: "+v.name+";location="+v.region+"\r\n")
}

// vaultHeaders are what every answer of a vault has.
func (c *call) vaultHeaders(h http.Header) {
	h.Set("Cache-Control", "no-cache")
	h.Set("Pragma", "no-cache")
	h.Set("Expires", "-1")
	h.Set("Strict-Transport-Security", "max-age=31536000;includeSubDomains")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("x-ms-keyvault-region", c.site.vault.region)
	h.Set("x-ms-keyvault-network-info", "conn_type=Ipv4;addr=127.0.0.1;act_addr_fam=InterNetwork;")
	h.Set("x-ms-keyvault-service-version", "1.9.749.1")
	h.Set("x-ms-request-id", newGUID())
	if id := c.r.Header.Get("x-ms-client-request-id"); id != "" {
		h.Set("x-ms-client-request-id", id)
	}
	if c.who.appID != "" && !c.site.vault.policies {
		h.Set("x-ms-keyvault-rbac-assignment-id", "00000000-0000-0000-0000-000000000000")
		h.Set("x-ms-keyvault-rbac-cache", "ra_age=429;da_age=9653;rd_age=9653;brd_age=13994;ra_notif_age=3154;dec_lev=0;")
	}
}
