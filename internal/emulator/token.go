package emulator

import (
	"crypto/subtle"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

type tokenJSON struct {
	Type         string `json:"token_type"`
	ExpiresIn    int    `json:"expires_in"`
	ExtExpiresIn int    `json:"ext_expires_in"`
	RefreshIn    int    `json:"refresh_in,omitempty"`
	Token        string `json:"access_token"`
}

// token is the client credentials grant (RFC 6749 4.4) with a secret or a JWT (RFC 7523 2.2).
func (c *call) token(t *tenant) *response {
	form, err := url.ParseQuery(string(c.body))
	if err != nil {
		return c.stsError(900144, "The request body must contain the following parameter: 'grant_type'.")
	}
	for _, p := range []string{"grant_type", "client_id", "scope"} {
		if form.Get(p) == "" {
			return c.stsError(900144, "The request body must contain the following parameter: '%s'.", p)
		}
	}
	if g := form.Get("grant_type"); g != "client_credentials" {
		return c.stsError(70003, "The app requested an unsupported grant type '%s'.", g)
	}
	id := form.Get("client_id")
	app := t.apps[strings.ToLower(id)]
	if app == nil {
		return c.stsError(700016, "Application with identifier '%s' was not found in the directory '%s'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.", id, t.id)
	}
	c.s.journal.caller(c.entry, app.ClientID)
	if r := c.credential(app, form); r != nil {
		return r
	}
	resource, r := c.resource(form.Get("scope"), t)
	if r != nil {
		return r
	}
	token, err := c.s.accessToken(c.site.authority, t, app, resource)
	if err != nil {
		return textResponse(http.StatusInternalServerError, "signing the token: "+err.Error())
	}
	life := int(c.s.lifetime / time.Second)
	out := tokenJSON{Type: "Bearer", ExpiresIn: life, ExtExpiresIn: life, Token: token}
	if c.s.lifetime > 2*time.Hour {
		out.RefreshIn = life / 2
	}
	return jsonResponse(http.StatusOK, out)
}

// credential returns nil if the form proves that the caller is the application.
func (c *call) credential(app *App, form url.Values) *response {
	secret, assertion := form.Get("client_secret"), form.Get("client_assertion")
	switch {
	case assertion != "":
		return c.assertion(app, strings.TrimSpace(assertion))
	case secret != "":
		for _, have := range app.secrets() {
			if subtle.ConstantTimeCompare([]byte(have), []byte(secret)) == 1 {
				return nil
			}
		}
		return c.stsError(7000215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '%s'.", app.ClientID)
	}
	return c.stsError(7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
}

const federationHelp = "Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"

// assertion verifies a JWT of a federated issuer: first who signed it, then whether the application trusts that.
func (c *call) assertion(app *App, token string) *response {
	p, err := parseJWT(token)
	if err != nil {
		return c.stsError(50027, "JWT token is invalid or malformed.")
	}
	cl := p.claims
	trusted := slices.ContainsFunc(app.Federated, func(f Federated) bool { return f.Issuer == cl.Issuer })
	if !trusted {
		return c.stsError(700211, "No matching federated identity record found for presented assertion issuer '%s'. %s", cl.Issuer, federationHelp)
	}
	is := c.s.issuers[cl.Issuer]
	if is == nil || is.verify(p) != nil {
		return c.stsError(700027, "The certificate with identifier used to sign the client assertion is not registered on application, or the signature is not valid: key '%s' of issuer '%s'.", p.header.Kid, cl.Issuer)
	}
	now := c.s.now()
	if now.Unix() >= cl.Expires || now.Unix() < cl.NotBefore-300 {
		return c.stsError(700024, "Client assertion is not within its valid time range. Current time: %s, assertion valid from %s, expiry time of assertion %s.",
			stamp(now.Unix()), stamp(cl.NotBefore), stamp(cl.Expires))
	}
	number, what, value := 700213, "subject", cl.Subject
	for _, f := range app.Federated {
		switch {
		case f.Issuer != cl.Issuer || f.Subject != cl.Subject:
		case !slices.Contains(cl.Audience, f.audience()):
			number, what, value = 700212, "audience", strings.Join(cl.Audience, ", ")
		default:
			return nil
		}
	}
	return c.stsError(number, "No matching federated identity record found for presented assertion %s '%s'. %s", what, value, federationHelp)
}

func stamp(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.RFC3339) }

// resource finds the audience that a scope stands for.
func (c *call) resource(scope string, t *tenant) (string, *response) {
	var wanted []string
	for _, f := range strings.Fields(scope) {
		if f != "openid" && f != "offline_access" && f != "profile" {
			wanted = append(wanted, f)
		}
	}
	if len(wanted) != 1 || !strings.HasSuffix(wanted[0], "/.default") {
		return "", c.stsError(70011, "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope %s is not valid.", scope)
	}
	resource := strings.TrimSuffix(wanted[0], "/.default")
	known := []string{c.site.authority.Resource, "https://management.azure.com", "https://graph.microsoft.com"}
	for _, k := range known {
		if strings.TrimSuffix(resource, "/") == k {
			return resource, nil
		}
	}
	return "", c.stsError(500011, "The resource principal named %s was not found in the tenant named %s. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant.", resource, t.id)
}
