package vault

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"keymount/internal/azure/identity"
	"keymount/internal/provider"
)

// patience returns how often a request that failed like this is tried.
func (k *call) patience(err error) int {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var proxy *identity.ProxyRefusal
	switch {
	case errors.As(err, &cert), errors.As(err, &proxy) && proxy.Code < 500:
		return 1
	case errors.As(err, &proxy): // for a name without an address, proxies answer 502, 503 or 504
		return maxNameTries
	case errors.As(err, &dns) && dns.IsNotFound:
		return maxNameTries
	}
	return maxTries
}

// unanswered explains why there is no answer.
func (k *call) unanswered(ctx context.Context, err error) error {
	var own credentialError
	var explained *provider.Error
	var pause paused
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &explained):
		return explained
	case errors.As(err, &pause):
		return k.object.failure(provider.Throttled, "the vault asks to be left alone", "", pause.left)
	case errors.Is(err, identity.ErrAnswerTooLarge):
		return k.object.malformed(identity.ErrAnswerTooLarge)
	case ctx.Err() != nil:
		return interrupted(k.object, k.client.shares.troubleOf(k.read), ctx.Err())
	}
	return k.object.unreachable(err)
}

func (o object) failure(kind provider.Kind, message, remedy string, after time.Duration) *provider.Error {
	return &provider.Error{Kind: kind, Object: o.id(), Message: o.String() + ": " + message, Remedy: remedy, RetryAfter: after}
}

// malformed is for answers that say success and are not what they should be. err must not repeat them.
func (o object) malformed(err error) *provider.Error {
	return o.failure(provider.Internal, "the answer is malformed: "+err.Error(),
		"check what answers at "+o.host()+", such as a proxy", 0)
}

// interrupted is for reads that time or patience ended, with the last trouble as the likely reason.
func interrupted(o object, trouble *provider.Error, why error) *provider.Error {
	if trouble == nil {
		e := o.failure(provider.Unavailable, why.Error(), "", 0)
		e.Cause = why
		return e
	}
	e := *trouble
	if e.RetryAfter > 0 {
		e.Message += fmt.Sprintf("; it asks to be left alone for %v", e.RetryAfter)
	}
	if errors.Is(why, context.DeadlineExceeded) {
		e.Message += "; tried until the time for it was over"
	} else {
		e.Message += "; no longer wanted"
	}
	e.Cause = why
	return &e
}

// unreachable is for requests without an answer.
func (o object) unreachable(err error) *provider.Error {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var proxy *identity.ProxyRefusal
	remedy := "check that this machine reaches the vault: firewall, proxy, private endpoint"
	switch {
	case errors.As(err, &dns):
		remedy = "check keyvaultName and cloudName; a private endpoint needs its private DNS zone linked to this network"
	case errors.As(err, &proxy):
		remedy = "check keyvaultName and cloudName, and that the proxy may connect to " + o.host()
	case errors.As(err, &cert):
		remedy = identity.Untrusted
	}
	e := o.failure(provider.Unavailable, identity.NetworkCause(err), remedy, 0)
	e.Cause = err
	return e
}

// refusal explains an answer that is not a success (Key Vault REST: Authentication, requests and responses). Of the vault's
// own message it repeats the first line: the others name subscriptions and addresses that differ from call to call.
func (o object) refusal(resp *http.Response, body []byte) *provider.Error {
	var answer struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Inner   struct {
				Code string `json:"code"`
			} `json:"innererror"`
		} `json:"error"`
	}
	_ = json.Unmarshal(body, &answer) // anything else is told by its status
	code := answer.Error.Code
	if answer.Error.Inner.Code != "" {
		code = answer.Error.Inner.Code
	}
	message := fmt.Sprintf("HTTP %d", resp.StatusCode)
	if code != "" {
		message += " " + identity.Tidy(code)
	}
	if line, _, _ := strings.Cut(strings.TrimSpace(answer.Error.Message), "\n"); line != "" {
		message += ": " + identity.Tidy(line)
	}
	kind, remedy := o.verdict(resp, code)
	if id := resp.Header.Get("X-Ms-Request-Id"); id != "" && len(id) <= 64 {
		message += " [x-ms-request-id " + identity.Tidy(id) + "]"
	}
	return o.failure(kind, message, remedy, identity.RetryAfter(resp.Header, time.Now()))
}

func (o object) verdict(resp *http.Response, code string) (provider.Kind, string) {
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized:
		return provider.Denied, "the vault does not accept this identity's token" + challenged(resp.Header.Get("WWW-Authenticate")) +
			"; compare tenantID and cloudName"
	case status == http.StatusForbidden:
		return provider.Denied, o.forbidden(code)
	case status == http.StatusNotFound:
		if o.version != "" {
			return provider.NotFound, "correct objectName and objectVersion; a deleted object may be recoverable"
		}
		return provider.NotFound, "correct objectName and objectType; a deleted object may be recoverable"
	case status == http.StatusTooManyRequests:
		return provider.Throttled, "the vault is asked for too much: use more vaults, fewer objects, or a longer rotation interval"
	case status == http.StatusRequestTimeout || status >= 500:
		return provider.Unavailable, ""
	case status == http.StatusBadRequest:
		return provider.Invalid, ""
	case status < 400:
		return provider.Internal, "nothing but HTTP 200 is expected: check what answers at " + o.host() + ", such as a proxy"
	}
	return provider.Internal, ""
}

// forbidden tells what to do about a 403 by the code inside it.
func (o object) forbidden(code string) string {
	switch code {
	case "SecretDisabled", "KeyDisabled", "CertificateDisabled":
		return "enable this version of the " + o.kind.noun() + ", or name an enabled one in objectVersion"
	case "ForbiddenByRbac":
		role := map[Kind]string{KindSecret: "Key Vault Secrets User", KindKey: "Key Vault Crypto User", KindCertificate: "Key Vault Certificate User"}[o.kind]
		return "assign the role " + role + " on the vault to this identity; a new assignment takes minutes to apply"
	case "AccessDenied":
		right := "get"
		if o.list {
			right = "list"
		}
		return "add the permission " + right + " on " + o.kind.path() + " for this identity to the vault's access policies"
	case "ForbiddenByFirewall":
		return "allow this node's outbound address in the vault's firewall, or use a private endpoint"
	case "ForbiddenByConnection":
		return "the vault takes private connections only: this network needs a private endpoint with its private DNS zone"
	case "ForbiddenByPolicy":
		return "the vault wants requests on behalf of a user, which pods cannot make: use another vault or identity"
	}
	return "give this identity the right to read " + o.kind.path()
}

// challenged repeats, for people, which tenant and resource the vault named in its challenge (RFC 9110 11.6.1). Nothing
// else is done with it: tokens go where the class's cloud says, whatever a vault answers.
func challenged(header string) string {
	const longest = 1024
	if len(header) > longest {
		header = header[:longest]
	}
	var said []string
	for _, name := range []string{"authorization", "resource"} {
		if _, rest, ok := strings.Cut(header, name+`="`); ok {
			value, _, _ := strings.Cut(rest, `"`)
			said = append(said, name+" "+quoted(value))
		}
	}
	if len(said) == 0 {
		return ""
	}
	return " (it names " + strings.Join(said, ", ") + ")"
}
