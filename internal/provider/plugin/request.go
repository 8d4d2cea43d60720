package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strconv"
	"time"
	"unicode/utf8"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider"
)

// wireToken is one token as kubelet writes it: a JSON object by audience, itself inside a JSON string.
type wireToken struct {
	Token               string     `json:"token"`
	ExpirationTimestamp *time.Time `json:"expirationTimestamp,omitempty"`
}

// encodeRequest puts a request into the protocol's form. What kubelet sets wins over parameters of the same name, also
// where this request has no value for it: a class cannot name the pod.
func encodeRequest(req *provider.Request) (*v1alpha1.MountRequest, error) {
	attributes := maps.Clone(req.Parameters)
	if attributes == nil {
		attributes = map[string]string{}
	}
	var secrets map[string]string
	for k, v := range req.Secrets {
		set(&secrets, k, v.Reveal())
	}
	delete(secrets, keyTokens)
	for key, value := range map[string]string{
		keyPodName: req.Pod.Name, keyPodNamespace: req.Pod.Namespace, keyPodUID: req.Pod.UID,
		keyServiceAccount: req.Pod.ServiceAccount, keyTokens: tokensJSON(req.Tokens, anyProof),
	} {
		delete(attributes, key)
		if value != "" {
			attributes[key] = value
		}
	}
	// The copy in secrets is what proves a token to the provider, so only a proven token may be there.
	if proven := tokensJSON(req.Tokens, byRequest); proven != "" {
		set(&secrets, keyTokens, proven)
	}
	if !utf8.ValidString(req.TargetPath) {
		return nil, &provider.Error{Kind: provider.Invalid, Message: "the target path is not valid UTF-8"}
	}
	out := &v1alpha1.MountRequest{
		Attributes: mustJSON(attributes),
		Secrets:    mustJSON(secrets), // a nil map is the literal null, which providers expect where there is no Secret
		TargetPath: req.TargetPath,
		// Providers parse it as a bare decimal number.
		Permission: strconv.FormatUint(uint64(req.DefaultMode.Perm()), 10),
	}
	for _, v := range req.Mounted {
		out.CurrentObjectVersion = append(out.CurrentObjectVersion, &v1alpha1.ObjectVersion{
			Id: clean(v.ID, maxVersionBytes), Version: clean(v.Version, maxVersionBytes)})
	}
	return out, nil
}

func set(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}

// mustJSON encodes a map of strings, which cannot fail.
func mustJSON(m map[string]string) string {
	out, err := json.Marshal(m)
	if err != nil {
		panic("encoding a map of strings: " + err.Error())
	}
	return string(out)
}

func anyProof(provider.Proof) bool        { return true }
func byRequest(proof provider.Proof) bool { return proof == provider.ProvenByRequest }

// tokensJSON encodes the tokens whose proof is wanted, "" if there are none.
func tokensJSON(tokens map[string]provider.Token, wanted func(provider.Proof) bool) string {
	out := map[string]wireToken{}
	for audience, token := range tokens {
		if !wanted(token.Proof) {
			continue
		}
		wire := wireToken{Token: token.Value.Reveal()}
		// Years that RFC 3339 cannot write would make the encoder fail.
		if expires := token.Expires.UTC(); !expires.IsZero() && expires.Year() < 10000 && expires.Year() >= 0 {
			wire.ExpirationTimestamp = &expires
		}
		out[audience] = wire
	}
	if len(out) == 0 {
		return ""
	}
	text, err := json.Marshal(out)
	if err != nil {
		panic("encoding tokens: " + err.Error())
	}
	return string(text)
}

// decodeRequest takes a request out of the protocol's form, all problems at once. Tokens that are in secrets came in the
// secrets of the CSI request, where no author can put them (the key is none that a Kubernetes Secret can hold); tokens that
// are in attributes only may have been written by an author.
func decodeRequest(in *v1alpha1.MountRequest) (*provider.Request, error) {
	var problems provider.Errors
	var attributes, secrets map[string]string
	if err := json.Unmarshal([]byte(in.GetAttributes()), &attributes); err != nil {
		problems = append(problems, invalid("failed to unmarshal attributes, error: %s", describe(err)))
	}
	if err := json.Unmarshal([]byte(in.GetSecrets()), &secrets); err != nil {
		problems = append(problems, invalid("failed to unmarshal secrets, error: %s", describe(err)))
	}
	mode, err := decodePermission(in.GetPermission())
	if err != nil {
		problems = append(problems, invalid("failed to unmarshal file permission, error: %s", err))
	}
	tokens := map[string]provider.Token{}
	for _, source := range []struct {
		text  string
		proof provider.Proof
	}{{attributes[keyTokens], provider.Unproven}, {secrets[keyTokens], provider.ProvenByRequest}} {
		if err := decodeTokens(tokens, source.text, source.proof); err != nil {
			problems = append(problems, invalid("failed to unmarshal service account tokens, error: %s", describe(err)))
		}
	}
	if len(in.GetCurrentObjectVersion()) > maxFiles {
		problems = append(problems, invalid("more than %d current object versions", maxFiles))
	}
	if len(problems) > 0 {
		return nil, problems
	}
	req := &provider.Request{
		Pod: provider.Pod{
			Namespace: attributes[keyPodNamespace], Name: attributes[keyPodName], UID: attributes[keyPodUID],
			ServiceAccount: attributes[keyServiceAccount],
		},
		Tokens:      tokens,
		Parameters:  attributes,
		TargetPath:  in.GetTargetPath(),
		DefaultMode: mode,
	}
	for _, key := range []string{keyPodName, keyPodNamespace, keyPodUID, keyServiceAccount, keyTokens} {
		delete(attributes, key)
	}
	delete(secrets, keyTokens)
	for key, value := range secrets {
		if req.Secrets == nil {
			req.Secrets = make(map[string]provider.Sensitive, len(secrets))
		}
		req.Secrets[key] = provider.Sensitive(value)
	}
	for _, v := range in.GetCurrentObjectVersion() {
		req.Mounted = append(req.Mounted, provider.ObjectVersion{ID: v.GetId(), Version: v.GetVersion()})
	}
	return req, nil
}

// decodeTokens adds the tokens of text to those there are; "" has none, and a later source wins over an earlier one. An
// empty token is as good as none.
func decodeTokens(tokens map[string]provider.Token, text string, proof provider.Proof) error {
	if text == "" {
		return nil
	}
	var wire map[string]wireToken
	if err := json.Unmarshal([]byte(text), &wire); err != nil {
		return err
	}
	for audience, w := range wire {
		if w.Token == "" {
			continue
		}
		token := provider.Token{Value: provider.Sensitive(w.Token), Proof: proof}
		if w.ExpirationTimestamp != nil {
			token.Expires = *w.ExpirationTimestamp
		}
		tokens[audience] = token
	}
	return nil
}

// decodePermission reads the mode of files that have none of their own: a bare JSON number of permission bits.
func decodePermission(text string) (fs.FileMode, error) {
	var mode uint32
	if err := json.Unmarshal([]byte(text), &mode); err != nil {
		return 0, errors.New(describe(err))
	}
	if mode > uint32(fs.ModePerm) {
		return 0, errors.New("not a file mode from 0 to 511")
	}
	return fs.FileMode(mode), nil
}

func invalid(format string, args ...any) *provider.Error {
	return &provider.Error{Kind: provider.Invalid, Message: fmt.Sprintf(format, args...)}
}

// describe says where JSON is wrong without repeating any of it, since it holds secrets.
func describe(err error) string {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax) && syntax.Offset == 0:
		return "empty or cut off, not JSON"
	case errors.As(err, &syntax):
		return fmt.Sprintf("not valid JSON at byte %d", syntax.Offset)
	case errors.As(err, &typ):
		return fmt.Sprintf("a value of the wrong type before byte %d, want %s", typ.Offset, typ.Type)
	}
	return "not in the form that the protocol prescribes"
}
