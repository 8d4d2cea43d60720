package emulator

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Errors of the token endpoint by their AADSTS number: HTTP status and OAuth error (RFC 6749 5.2).
type stsCode struct {
	number int
	status int
	oauth  string
}

func stsCodes(number int) stsCode {
	switch number {
	case 700016:
		return stsCode{number, http.StatusBadRequest, "unauthorized_client"}
	case 90002, 900144:
		return stsCode{number, http.StatusBadRequest, "invalid_request"}
	case 500011:
		return stsCode{number, http.StatusBadRequest, "invalid_resource"}
	case 70011:
		return stsCode{number, http.StatusBadRequest, "invalid_scope"}
	case 70003:
		return stsCode{number, http.StatusBadRequest, "unsupported_grant_type"}
	case 50049:
		return stsCode{number, http.StatusBadRequest, "invalid_instance"}
	}
	return stsCode{number, http.StatusUnauthorized, "invalid_client"}
}

type stsErrorJSON struct {
	Error         string `json:"error"`
	Description   string `json:"error_description"`
	Codes         []int  `json:"error_codes"`
	Timestamp     string `json:"timestamp"`
	TraceID       string `json:"trace_id"`
	CorrelationID string `json:"correlation_id"`
	URI           string `json:"error_uri"`
}

func (c *call) stsError(number int, format string, args ...any) *response {
	code := stsCodes(number)
	return c.stsErrorStatus(code.status, code.oauth, number, fmt.Sprintf(format, args...))
}

func (c *call) stsErrorStatus(status int, oauth string, number int, text string) *response {
	trace, corr := newGUID(), newGUID()
	if id := c.r.Header.Get("Client-Request-Id"); id != "" {
		corr = id
	}
	at := c.s.now().UTC().Format("2006-01-02 15:04:05Z")
	return jsonResponse(status, stsErrorJSON{
		Error:       oauth,
		Description: fmt.Sprintf("AADSTS%d: ", number) + text + fmt.Sprintf(" Trace ID: %s Correlation ID: %s Timestamp: %s", trace, corr, at),
		Codes:       []int{number}, Timestamp: at, TraceID: trace, CorrelationID: corr,
		URI: fmt.Sprintf("https://%s/error?code=%d", c.host, number),
	})
}

func authorityKind(r *http.Request) string {
	p := r.URL.Path
	switch {
	case strings.HasSuffix(p, "/discovery/instance"):
		return KindInstanceDiscovery
	case strings.HasSuffix(p, "/.well-known/openid-configuration"):
		return KindOpenID
	case strings.HasSuffix(p, "/oauth2/v2.0/token") || strings.HasSuffix(p, "/adfs/oauth2/token"):
		return KindToken
	case strings.HasSuffix(p, "/discovery/v2.0/keys") || strings.HasSuffix(p, "/adfs/discovery/keys"):
		return KindJWKS
	}
	return KindAuthorityOther
}

func (c *call) authorityHeaders(h http.Header) {
	if c.kind == KindToken {
		h.Set("Cache-Control", "no-store, no-cache")
		h.Set("Pragma", "no-cache")
		h.Set("Expires", "-1")
	} else {
		h.Set("Cache-Control", "max-age=86400, private")
		h.Set("Access-Control-Allow-Methods", "GET, OPTIONS")
		h.Set("Access-Control-Allow-Origin", "*")
	}
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("x-ms-request-id", newGUID())
	h.Set("x-ms-ests-server", "2.1.14856.7 - EMULATOR ProdSlices")
	h.Set("P3P", `CP="DSP CUR OTPi IND OTRi ONL FIN"`)
}

func (c *call) answerAuthority() *response {
	s := c.s
	want := http.MethodGet
	if c.kind == KindToken {
		want = http.MethodPost
	}
	if c.kind == KindAuthorityOther {
		return textResponse(http.StatusNotFound, "The emulator serves nothing at this path.")
	}
	if c.r.Method != want {
		return textResponse(http.StatusMethodNotAllowed, "method not allowed")
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if c.kind == KindInstanceDiscovery {
		return c.instanceDiscovery()
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(c.r.URL.Path, "/"), "/")
	t := s.tenants[strings.ToLower(name)]
	if t == nil {
		return c.stsError(90002, "Tenant '%s' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant.", name)
	}
	switch c.kind {
	case KindOpenID:
		return c.openID(t)
	case KindJWKS:
		key := s.key().Public()
		return keySet([]publicKey{{keyID(key), key}})
	}
	return c.token(t)
}

type instanceJSON struct {
	Network string   `json:"preferred_network"`
	Cache   string   `json:"preferred_cache"`
	Aliases []string `json:"aliases"`
}

// instanceDiscovery answers which hosts are one cloud. Unlike the service it takes the authorities of a seed's clouds too.
func (c *call) instanceDiscovery() *response {
	endpoint := c.r.URL.Query().Get("authorization_endpoint")
	u, err := url.Parse(endpoint)
	var asked *Cloud
	if err == nil {
		if at, ok := c.s.site(hostName(u.Host)); ok {
			asked = at.authority
		}
	}
	if asked == nil {
		return c.stsError(50049, "Unknown or invalid instance.")
	}
	meta := []instanceJSON{
		{"login.microsoftonline.com", "login.windows.net", []string{"login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"}},
		{"login.partner.microsoftonline.cn", "login.partner.microsoftonline.cn", []string{"login.partner.microsoftonline.cn", "login.chinacloudapi.cn"}},
		{"login.microsoftonline.de", "login.microsoftonline.de", []string{"login.microsoftonline.de"}},
		{"login.microsoftonline.us", "login.microsoftonline.us", []string{"login.microsoftonline.us", "login.usgovcloudapi.net"}},
		{"login-us.microsoftonline.com", "login-us.microsoftonline.com", []string{"login-us.microsoftonline.com"}},
	}
	for _, cl := range c.s.clouds[len(clouds()):] {
		meta = append(meta, instanceJSON{cl.Authority, cl.Authority, append([]string{cl.Authority}, cl.Aliases...)})
	}
	tenant, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	return jsonResponse(http.StatusOK, struct {
		Endpoint string         `json:"tenant_discovery_endpoint"`
		Version  string         `json:"api-version"`
		Metadata []instanceJSON `json:"metadata"`
	}{"https://" + asked.Authority + "/" + tenant + "/v2.0/.well-known/openid-configuration", "1.1", meta})
}

type openIDJSON struct {
	TokenEndpoint       string   `json:"token_endpoint"`
	TokenAuthMethods    []string `json:"token_endpoint_auth_methods_supported"`
	JWKS                string   `json:"jwks_uri"`
	ResponseModes       []string `json:"response_modes_supported"`
	SubjectTypes        []string `json:"subject_types_supported"`
	SigningAlgs         []string `json:"id_token_signing_alg_values_supported"`
	ResponseTypes       []string `json:"response_types_supported"`
	Scopes              []string `json:"scopes_supported"`
	Issuer              string   `json:"issuer"`
	RequestURIParam     bool     `json:"request_uri_parameter_supported"`
	UserInfo            string   `json:"userinfo_endpoint"`
	Authorization       string   `json:"authorization_endpoint"`
	DeviceAuthorization string   `json:"device_authorization_endpoint"`
	HTTPLogout          bool     `json:"http_logout_supported"`
	FrontchannelLogout  bool     `json:"frontchannel_logout_supported"`
	EndSession          string   `json:"end_session_endpoint"`
	Claims              []string `json:"claims_supported"`
	Kerberos            string   `json:"kerberos_endpoint"`
	Region              *string  `json:"tenant_region_scope"`
	CloudInstance       string   `json:"cloud_instance_name"`
	CloudGraph          string   `json:"cloud_graph_host_name"`
	Graph               string   `json:"msgraph_host"`
	RBAC                string   `json:"rbac_url"`
}

// openID names endpoints on the host that was asked, since clients compare the issuer's host with their authority.
func (c *call) openID(t *tenant) *response {
	base := "https://" + c.host + "/" + t.id
	region := "NA"
	return jsonResponse(http.StatusOK, openIDJSON{
		TokenEndpoint: base + "/oauth2/v2.0/token", TokenAuthMethods: []string{"client_secret_post", "private_key_jwt", "client_secret_basic"},
		JWKS: base + "/discovery/v2.0/keys", ResponseModes: []string{"query", "fragment", "form_post"}, SubjectTypes: []string{"pairwise"},
		SigningAlgs: []string{"RS256"}, ResponseTypes: []string{"code", "id_token", "code id_token", "id_token token"},
		Scopes: []string{"openid", "profile", "email", "offline_access"}, Issuer: base + "/v2.0",
		UserInfo: "https://graph.microsoft.com/oidc/userinfo", Authorization: base + "/oauth2/v2.0/authorize",
		DeviceAuthorization: base + "/oauth2/v2.0/devicecode", HTTPLogout: true, FrontchannelLogout: true, EndSession: base + "/oauth2/v2.0/logout",
		Claims: []string{"sub", "iss", "cloud_instance_name", "cloud_instance_host_name", "cloud_graph_host_name", "msgraph_host", "aud", "exp", "iat",
			"auth_time", "acr", "nonce", "preferred_username", "name", "tid", "ver", "at_hash", "c_hash", "email"},
		Kerberos: base + "/kerberos", Region: &region,
		CloudInstance: "microsoftonline.com", CloudGraph: "graph.windows.net", Graph: "graph.microsoft.com", RBAC: "https://pas.windows.net",
	})
}
