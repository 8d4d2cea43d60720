package emulator

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"
)

// The types of this file are the JSON of the service. The order of members is that of recorded answers; what is absent
// there when it is not set is absent here.

type attributesJSON struct {
	Enabled         bool   `json:"enabled"`
	NotBefore       int64  `json:"nbf,omitempty"`
	Expires         int64  `json:"exp,omitempty"`
	Created         int64  `json:"created"`
	Updated         int64  `json:"updated"`
	RecoveryLevel   string `json:"recoveryLevel,omitempty"`
	RecoverableDays int    `json:"recoverableDays,omitempty"`
	Exportable      *bool  `json:"exportable,omitempty"`
}

type deletedJSON struct {
	RecoveryID         string `json:"recoveryId"`
	DeletedDate        int64  `json:"deletedDate"`
	ScheduledPurgeDate int64  `json:"scheduledPurgeDate"`
}

// secretJSON is a secret's bundle (with a value), its deleted form, and its item in a list.
type secretJSON struct {
	*deletedJSON
	Value       *string           `json:"value,omitempty"`
	ContentType string            `json:"contentType,omitempty"`
	ID          string            `json:"id"`
	Managed     bool              `json:"managed,omitempty"`
	Attributes  attributesJSON    `json:"attributes"`
	Tags        map[string]string `json:"tags,omitzero"`
	KID         string            `json:"kid,omitempty"`
}

type jwkJSON struct {
	KID string   `json:"kid"`
	Kty string   `json:"kty"`
	Ops []string `json:"key_ops,omitzero"`
	N   string   `json:"n,omitempty"`
	E   string   `json:"e,omitempty"`
	Crv string   `json:"crv,omitempty"`
	X   string   `json:"x,omitempty"`
	Y   string   `json:"y,omitempty"`
}

type keyJSON struct {
	*deletedJSON
	Key           jwkJSON           `json:"key"`
	Attributes    attributesJSON    `json:"attributes"`
	Tags          map[string]string `json:"tags,omitzero"`
	Managed       bool              `json:"managed,omitempty"`
	ReleasePolicy json.RawMessage   `json:"release_policy,omitempty"`
}

type keyItemJSON struct {
	*deletedJSON
	KID        string            `json:"kid"`
	Attributes attributesJSON    `json:"attributes"`
	Tags       map[string]string `json:"tags,omitzero"`
	Managed    bool              `json:"managed,omitempty"`
}

type certificateJSON struct {
	*deletedJSON
	ID         string            `json:"id"`
	KID        string            `json:"kid,omitempty"`
	SID        string            `json:"sid,omitempty"`
	X5T        string            `json:"x5t,omitempty"`
	Cer        string            `json:"cer,omitempty"`
	Attributes attributesJSON    `json:"attributes"`
	Tags       map[string]string `json:"tags,omitzero"`
	Policy     *policyJSON       `json:"policy,omitempty"`
	Pending    *idJSON           `json:"pending,omitempty"`
}

type certificateItemJSON struct {
	*deletedJSON
	ID         string            `json:"id"`
	X5T        string            `json:"x5t,omitempty"`
	Attributes attributesJSON    `json:"attributes"`
	Tags       map[string]string `json:"tags,omitzero"`
	Subject    *string           `json:"subject,omitempty"`
}

type idJSON struct {
	ID string `json:"id"`
}

type policyJSON struct {
	ID              string               `json:"id,omitempty"`
	Key             *keyPropsJSON        `json:"key_props,omitempty"`
	Secret          *secretPropsJSON     `json:"secret_props,omitempty"`
	X509            *x509PropsJSON       `json:"x509_props,omitempty"`
	LifetimeActions []lifetimeActionJSON `json:"lifetime_actions,omitempty"`
	Issuer          *issuerJSON          `json:"issuer,omitempty"`
	Attributes      *policyAttrsJSON     `json:"attributes,omitempty"`
}

type keyPropsJSON struct {
	Exportable *bool  `json:"exportable,omitempty"`
	Kty        string `json:"kty,omitempty"`
	KeySize    int    `json:"key_size,omitempty"`
	ReuseKey   *bool  `json:"reuse_key,omitempty"`
	Crv        string `json:"crv,omitempty"`
}

type secretPropsJSON struct {
	ContentType string `json:"contentType"`
}

type x509PropsJSON struct {
	Subject          string           `json:"subject,omitempty"`
	SANs             *sansJSON        `json:"sans,omitempty"`
	EKUs             []string         `json:"ekus,omitzero"`
	KeyUsage         []string         `json:"key_usage,omitzero"`
	ValidityMonths   int              `json:"validity_months,omitempty"`
	BasicConstraints *constraintsJSON `json:"basic_constraints,omitempty"`
}

type sansJSON struct {
	DNSNames []string `json:"dns_names,omitempty"`
	Emails   []string `json:"emails,omitempty"`
	UPNs     []string `json:"upns,omitempty"`
}

type constraintsJSON struct {
	CA bool `json:"ca"`
}

type lifetimeActionJSON struct {
	Trigger map[string]int    `json:"trigger"`
	Action  map[string]string `json:"action"`
}

type issuerJSON struct {
	Name             string `json:"name"`
	Cty              string `json:"cty,omitempty"`
	CertTransparency *bool  `json:"cert_transparency,omitempty"`
}

type policyAttrsJSON struct {
	Enabled bool  `json:"enabled"`
	Created int64 `json:"created"`
	Updated int64 `json:"updated"`
}

type pendingJSON struct {
	ID                    string        `json:"id"`
	Issuer                issuerJSON    `json:"issuer"`
	CSR                   string        `json:"csr"`
	CancellationRequested bool          `json:"cancellation_requested"`
	Status                string        `json:"status"`
	StatusDetails         string        `json:"status_details,omitempty"`
	Error                 *errorMembers `json:"error,omitempty"`
	Target                string        `json:"target,omitempty"`
	RequestID             string        `json:"request_id"`
}

// pageJSON is a page of a list; nextLink is null on the last one.
type pageJSON struct {
	Value    []any   `json:"value"`
	NextLink *string `json:"nextLink"`
}

type errorMembers struct {
	Code    string      `json:"code"`
	Message string      `json:"message"`
	Inner   *innerError `json:"innererror,omitempty"`
}

type innerError struct {
	Code string `json:"code"`
}

// A response is an answer not yet written, so that a fault can change it.
type response struct {
	status int
	header http.Header
	body   []byte
	// chunk, if not zero, is how many bytes go out at a time, with a pause after each chunk.
	chunk int
	pause time.Duration
}

func jsonResponse(status int, value any) *response {
	// The service does not escape <, > and &, which encoding/json does unless told otherwise.
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return textResponse(http.StatusInternalServerError, "encoding the answer: "+err.Error())
	}
	r := &response{status: status, header: http.Header{}, body: bytes.TrimSuffix(b.Bytes(), []byte("\n"))}
	r.header.Set("Content-Type", "application/json; charset=utf-8")
	return r
}

func textResponse(status int, text string) *response {
	r := &response{status: status, header: http.Header{}, body: []byte(text + "\n")}
	r.header.Set("Content-Type", "text/plain; charset=utf-8")
	return r
}

func errorResponse(status int, code, inner, message string) *response {
	e := errorMembers{Code: code, Message: message}
	if inner != "" {
		e.Inner = &innerError{inner}
	}
	return jsonResponse(status, struct {
		Error errorMembers `json:"error"`
	}{e})
}
