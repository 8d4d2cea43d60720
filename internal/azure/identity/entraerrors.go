package identity

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"keymount/internal/provider"
)

// explain turns an error of azidentity into one that says what to do. The SDK's own text is not used: it holds whole
// answers, which for a malformed success would include the token, and ids that never repeat.
func (a *asking) explain(ctx context.Context, err error) *provider.Error {
	where := "getting an access token for " + a.who + " from " + a.spec.Authority + "/" + a.spec.TenantID
	var refused *azidentity.AuthenticationFailedError
	if errors.As(err, &refused) && refused.RawResponse != nil {
		return a.refusal(where, refused.RawResponse)
	}
	if ctx.Err() != nil {
		return &provider.Error{Kind: provider.Unavailable, Cause: ctx.Err(),
			Message: where + ": no answer in time", Remedy: unreachable(a.spec.Authority)}
	}
	a.mu.Lock()
	last, granted := a.lastErr, a.granted
	a.mu.Unlock()
	if a.chain && !granted {
		return &provider.Error{Kind: provider.Denied, Message: where + ": " + Tidy(err.Error()),
			Remedy: signIn}
	}
	if last == nil || granted {
		return &provider.Error{Kind: provider.Internal, Message: where + ": the answer is not one of Entra ID's",
			Remedy: "check what answers at " + a.spec.Authority + ", such as a proxy or captive portal"}
	}
	remedy := unreachable(a.spec.Authority)
	if _, ok := errors.AsType[*tls.CertificateVerificationError](last); ok {
		remedy = Untrusted
	}
	return &provider.Error{Kind: provider.Unavailable, Cause: last, Message: where + ": " + NetworkCause(last), Remedy: remedy}
}

// signIn is the remedy where a developer's own sign-in is not found.
const signIn = "sign in with `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"

// Untrusted is the remedy where nobody known has signed a server's certificate.
const Untrusted = "if a proxy of yours signed it, add its CA to SSL_CERT_FILE"

func unreachable(authority string) string {
	return "check that this machine reaches " + authority + ": DNS, firewall, proxy"
}

// refusal explains an answer that is an error (Entra ID: error response of the token endpoint, RFC 6749 5.2).
func (a *asking) refusal(where string, resp *http.Response) *provider.Error {
	body, _ := runtime.Payload(resp)
	var answer struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Codes       []int  `json:"error_codes"`
		Trace       string `json:"trace_id"`
		Correlation string `json:"correlation_id"`
	}
	_ = json.Unmarshal(body, &answer) // anything else is told by its status
	e := &provider.Error{Kind: provider.Denied, Message: fmt.Sprintf("%s: HTTP %d", where, resp.StatusCode)}
	if answer.Description != "" {
		e.Message = where + ": " + Tidy(answer.Description)
	} else if answer.Error != "" {
		e.Message += " " + Tidy(answer.Error)
	}
	a.log.Debug("Entra ID refused a token request", "status", resp.StatusCode, "trace_id", Tidy(answer.Trace),
		"correlation_id", Tidy(answer.Correlation))
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		e.Kind, e.RetryAfter = provider.Throttled, RetryAfter(resp.Header, time.Now())
		return e
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusRequestTimeout:
		e.Kind = provider.Unavailable
		return e
	case a.chain && answer.Error == "" && answer.Description == "":
		// The chain asks several services, such as the metadata service of a virtual machine, and anything may answer there.
		if resp.Request != nil {
			e.Message += " from " + Tidy(resp.Request.URL.Host)
		}
		e.Remedy = signIn
		return e
	case answer.Error == "" && answer.Description == "":
		e.Kind = provider.Unavailable
		e.Remedy = "the answer is not one of Entra ID's: check for a proxy between this machine and " + a.spec.Authority
		return e
	}
	e.Kind, e.Remedy = a.remedy(codeOf(answer.Codes, answer.Description))
	return e
}

func codeOf(codes []int, description string) int {
	if len(codes) > 0 {
		return codes[0]
	}
	if rest, ok := strings.CutPrefix(description, "AADSTS"); ok {
		digits, _, _ := strings.Cut(rest, ":")
		code, _ := strconv.Atoi(digits)
		return code
	}
	return 0
}

// remedy knows the codes that people meet (Microsoft Entra authentication error codes).
func (a *asking) remedy(code int) (provider.Kind, string) {
	switch code {
	case 7000215:
		return provider.Denied, "clientsecret must be the secret's value, not its id, with no newline at its end"
	case 7000222:
		return provider.Denied, "the client secret has expired: make a new one and put it into the Secret of nodePublishSecretRef"
	case 700016:
		return provider.Denied, "compare clientID and tenantID: the application must be in that directory"
	case 7000112:
		return provider.Denied, "the application is disabled in the directory: enable it"
	case 90002:
		return provider.Invalid, "correct tenantID, or cloudName if the directory is in another cloud"
	case 500011, 70011:
		return provider.Invalid, "the directory does not know " + a.spec.Resource + ": compare cloudName and tenantID"
	case 900382:
		return provider.Invalid, "the directory is in another cloud: correct cloudName"
	case 50027:
		return provider.Denied, "what was given as the service account token is none: a pod must be recreated, a token file replaced"
	case 70021, 700211, 700212, 700213:
		return provider.Denied, fmt.Sprintf("the application needs a federated credential with issuer %s, subject %s and audience %s, letter by letter",
			quote(a.said.issuer), quote(a.said.subject), workloadAudience)
	case 700024:
		return provider.Denied, "the pod's token has expired or is not valid yet: compare the clocks; kubelet brings a new token"
	}
	return provider.Denied, ""
}

func quote(s string) string {
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return strconv.Quote(s)
}

// NetworkCause says in stable words why a request had no answer.
func NetworkCause(err error) string {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var op *net.OpError
	var outer *url.Error
	var proxy *ProxyRefusal
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no address for host " + dns.Name
	case errors.As(err, &dns):
		return "looking up host " + dns.Name + " failed"
	case errors.As(err, &cert):
		return "the server's certificate is not trusted: " + Tidy(cert.Err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &proxy):
		return proxy.Error()
	case errors.As(err, &op) && op.Op == "dial":
		return "connecting failed: " + Tidy(op.Err.Error())
	case errors.As(err, &outer):
		return Tidy(outer.Err.Error())
	}
	return Tidy(err.Error())
}

// maxText bounds what is repeated of texts that others wrote.
const maxText = 400

// Tidy returns the stable part of a text that a service wrote, on one line: without ids and times, which make every text
// unique, and without control characters.
func Tidy(s string) string {
	const enough = 4 << 10 // a hostile service could make the search below costly
	s = s[:min(len(s), enough)]
	for _, name := range []string{"Trace ID", "Correlation ID", "Timestamp"} {
		s = volatile(name).ReplaceAllString(s, "")
	}
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || !strconv.IsPrint(r) && r != ' ' }), " ")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return s
}

// volatile is compiled per use: errors are rare, and package variables are shared state.
func volatile(name string) *regexp.Regexp {
	return regexp.MustCompile(name + `: \S+( \d\d:\d\d:\d\dZ)?`)
}

// RetryAfter returns how long an answer asks to be left alone, in either form of the header (RFC 9110 10.2.3) or in the
// milliseconds of Azure's own headers; 0 if it does not ask. It is never longer than an hour.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	const longest = time.Hour
	for name, unit := range map[string]time.Duration{"Retry-After-Ms": time.Millisecond, "X-Ms-Retry-After-Ms": time.Millisecond, "Retry-After": time.Second} {
		v := h.Get(name)
		if n, err := strconv.ParseInt(v, 10, 64); err == nil && n > 0 {
			return time.Duration(min(n, int64(longest/unit))) * unit
		}
		if t, err := http.ParseTime(v); err == nil && unit == time.Second && t.After(now) {
			return min(t.Sub(now), longest)
		}
	}
	return 0
}
