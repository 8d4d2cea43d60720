package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keymount/internal/provider"
)

// maxToken bounds a service account token; those of Kubernetes have 1 to 2 KiB.
const maxToken = 16 << 10

// claims are what a service account token says. Nothing here says that it is true: no signature has been checked.
type claims struct {
	issuer, subject string
	audiences       []string
	expires         time.Time
	podUID          string
}

var errNotJWT = errors.New("it is not a JSON web token")

// parseClaims reads the payload of a JSON web token (RFC 7519 7.2). Names are matched exactly, and a name that occurs
// twice is refused: whoever verifies the signature could read such a token in another way than we do.
func parseClaims(token string) (claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxToken {
		return claims{}, errNotJWT
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return claims{}, errNotJWT
	}
	top, err := members(payload)
	if err != nil {
		return claims{}, errNotJWT
	}
	var c claims
	var expires float64
	for name, into := range map[string]any{"iss": &c.issuer, "sub": &c.subject, "exp": &expires} {
		if raw, ok := top[name]; !ok || json.Unmarshal(raw, into) != nil {
			return claims{}, fmt.Errorf("its claim %q is missing or has the wrong type", name)
		}
	}
	if expires < 0 || expires > 1e11 {
		return claims{}, errors.New("its expiry is no date")
	}
	c.expires = time.Unix(int64(expires), 0)
	var one string
	switch raw := top["aud"]; {
	case json.Unmarshal(raw, &c.audiences) == nil:
	case json.Unmarshal(raw, &one) == nil:
		c.audiences = []string{one}
	default:
		return claims{}, errors.New(`its claim "aud" is missing or has the wrong type`)
	}
	c.podUID = podUID(top["kubernetes.io"])
	return c, nil
}

// podUID returns the uid of the pod that the token is bound to, "" if there is none.
func podUID(raw json.RawMessage) string {
	var uid string
	k8s, err := members(raw)
	if err != nil {
		return ""
	}
	pod, err := members(k8s["pod"])
	if err != nil || json.Unmarshal(pod["uid"], &uid) != nil {
		return ""
	}
	return uid
}

// members returns the members of a JSON object, refusing names that occur twice.
func members(object []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errNotJWT
	}
	out := map[string]json.RawMessage{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, errNotJWT
		}
		name, ok := t.(string)
		if _, twice := out[name]; twice || !ok {
			return nil, errNotJWT
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return nil, errNotJWT
		}
		out[name] = value
	}
	if _, err := dec.Token(); err != nil || dec.InputOffset() != int64(len(bytes.TrimRight(object, " \t\r\n"))) {
		return nil, errNotJWT
	}
	return out, nil
}

// disagreement returns what in the claims speaks against the token being the pod's own, "" if nothing does.
func (c claims) disagreement(pod provider.Pod, audience string) string {
	switch {
	case pod.Namespace == "" || pod.ServiceAccount == "" || pod.UID == "":
		return "the request does not say which pod it is for"
	case c.issuer == "":
		return "it has no issuer"
	case c.subject != "system:serviceaccount:"+pod.Namespace+":"+pod.ServiceAccount:
		return "its subject is another service account"
	case c.podUID != pod.UID:
		return "it belongs to another pod"
	case !slices.Contains(c.audiences, audience):
		return "it is for another audience"
	}
	return ""
}
