package emulator

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// apiVersions are those that the service is known to take, oldest first.
func apiVersions() []string {
	return []string{"7.0", "7.1", "7.2", "7.3-preview", "7.3", "7.4", "7.5", "7.6",
		"2025-06-01-preview", "2025-07-01", "2026-01-01-preview", "2026-04-01"}
}

func apiAtLeast(api, least string) bool {
	all := apiVersions()
	return slices.Index(all, api) >= slices.Index(all, least)
}

// validName is the rule for names of objects (Key Vault documentation, "object identifiers").
var validName = regexp.MustCompile(`^[0-9a-zA-Z-]{1,127}$`)

// An op is what a request to a vault wants.
type op string

const (
	opNone        op = ""
	opGet         op = "get"
	opList        op = "list"
	opVersions    op = "versions"
	opSet         op = "set"
	opImport      op = "import"
	opCreate      op = "create"
	opUpdate      op = "update"
	opDelete      op = "delete"
	opDeletedGet  op = "deleted-get"
	opDeletedList op = "deleted-list"
	opRecover     op = "recover"
	opPurge       op = "purge"
	opPending     op = "pending"
	opPolicy      op = "policy"
	opMerge       op = "merge"
)

type route struct {
	op      op
	kind    kind
	name    string
	version string
	method  string
}

// parseRoute reads a request's path. A slash at the end stands for "the newest version".
func parseRoute(method string, u *url.URL) route {
	var seg []string
	for _, s := range strings.Split(strings.TrimPrefix(u.EscapedPath(), "/"), "/") {
		plain, err := url.PathUnescape(s)
		if err != nil {
			return route{method: method}
		}
		seg = append(seg, plain)
	}
	if n := len(seg); n > 1 && seg[n-1] == "" {
		seg = seg[:n-1]
	}
	root := strings.ToLower(seg[0])
	isDeleted := strings.HasPrefix(root, "deleted")
	k := kind(strings.TrimPrefix(root, "deleted"))
	if k != secrets && k != keys && k != certificates {
		return route{method: method}
	}
	rt := route{kind: k, method: method}
	if len(seg) > 1 {
		rt.name = seg[1]
	}
	if isDeleted {
		rt.op = deletedOp(method, seg)
	} else {
		rt.op, rt.version = liveOp(k, method, seg)
	}
	return rt
}

func deletedOp(method string, seg []string) op {
	switch {
	case len(seg) == 1 && method == http.MethodGet:
		return opDeletedList
	case len(seg) == 2 && method == http.MethodGet:
		return opDeletedGet
	case len(seg) == 2 && method == http.MethodDelete:
		return opPurge
	case len(seg) == 3 && method == http.MethodPost && seg[2] == "recover":
		return opRecover
	}
	return opNone
}

func liveOp(k kind, method string, seg []string) (op, string) {
	if len(seg) == 1 {
		if method == http.MethodGet {
			return opList, ""
		}
		return opNone, ""
	}
	tail := strings.Join(seg[2:], "/")
	if k == certificates {
		if (seg[1] == "issuers" || seg[1] == "contacts") && method != http.MethodGet || len(seg) == 2 && (seg[1] == "issuers" || seg[1] == "contacts") {
			return opNone, ""
		}
		switch {
		case method == http.MethodPost && tail == "import":
			return opImport, ""
		case method == http.MethodPost && tail == "pending/merge":
			return opMerge, ""
		case tail == "pending" && slices.Contains([]string{http.MethodGet, http.MethodPatch, http.MethodDelete}, method):
			return opPending, ""
		case tail == "policy" && (method == http.MethodGet || method == http.MethodPatch):
			return opPolicy, ""
		}
	}
	switch {
	case method == http.MethodGet && tail == "versions":
		return opVersions, ""
	case method == http.MethodGet && len(seg) <= 3:
		return opGet, tail
	case method == http.MethodPatch && len(seg) <= 3:
		return opUpdate, tail
	case method == http.MethodDelete && len(seg) == 2:
		return opDelete, ""
	case method == http.MethodPut && len(seg) == 2 && k == secrets:
		return opSet, ""
	case method == http.MethodPut && len(seg) == 2 && k == keys:
		return opImport, ""
	case method == http.MethodPost && tail == "create" && k != secrets:
		return opCreate, ""
	}
	return opNone, ""
}

// Request kinds, by which requests are counted and faults choose. Groups, by which latency is set, are "vault", "token" and
// "discovery".
const (
	KindSecretGet         = "secret-get"
	KindKeyGet            = "key-get"
	KindCertificateGet    = "certificate-get"
	KindList              = "list"      // of objects, deleted ones included
	KindVersions          = "versions"  // of one object
	KindWrite             = "write"     // everything that changes a vault
	KindChallenge         = "challenge" // any request to a vault without an Authorization header
	KindVaultOther        = "vault-other"
	KindToken             = "token"
	KindOpenID            = "openid"
	KindInstanceDiscovery = "instance-discovery"
	KindJWKS              = "jwks"
	KindAuthorityOther    = "authority-other"
	KindIssuer            = "issuer" // a cluster issuer's own documents

	GroupVault     = "vault"
	GroupToken     = "token"
	GroupDiscovery = "discovery"
)

func kinds() []string {
	return []string{KindSecretGet, KindKeyGet, KindCertificateGet, KindList, KindVersions, KindWrite, KindChallenge, KindVaultOther,
		KindToken, KindOpenID, KindInstanceDiscovery, KindJWKS, KindAuthorityOther, KindIssuer}
}

func groups() []string { return []string{GroupVault, GroupToken, GroupDiscovery} }

func groupOf(kind string) string {
	switch kind {
	case KindToken:
		return GroupToken
	case KindOpenID, KindInstanceDiscovery, KindJWKS, KindAuthorityOther, KindIssuer:
		return GroupDiscovery
	}
	return GroupVault
}

func (c *call) group() string { return groupOf(c.kind) }

// classify finds what the request is counted as, before anything is checked.
func (c *call) classify() {
	switch {
	case c.site.issuer != nil:
		c.kind = KindIssuer
	case c.site.authority != nil:
		c.kind = authorityKind(c.r)
	default:
		method := c.r.Method
		if o := c.r.Header.Get("X-HTTP-METHOD"); method == http.MethodPost && o != "" {
			method = strings.ToUpper(o)
		}
		c.route = parseRoute(method, c.r.URL)
		c.api = c.r.URL.Query().Get("api-version")
		c.kind = c.route.counted()
		if c.r.Header.Get("Authorization") == "" {
			c.kind = KindChallenge
		}
	}
}

func (rt route) counted() string {
	switch rt.op {
	case opGet:
		return rt.kind.noun() + "-get"
	case opList, opDeletedList:
		return KindList
	case opVersions:
		return KindVersions
	case opNone, opDeletedGet:
		return KindVaultOther
	case opPending, opPolicy:
		if rt.method == http.MethodGet {
			return KindVaultOther
		}
	}
	return KindWrite
}

func checkKind(k string) error {
	if k == "" || slices.Contains(kinds(), k) || slices.Contains(groups(), k) {
		return nil
	}
	return fmt.Errorf("unknown request kind %q: use one of %s, a group (%s), or nothing for all", k, strings.Join(kinds(), ", "), strings.Join(groups(), ", "))
}
