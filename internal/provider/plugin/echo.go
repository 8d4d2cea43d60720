package plugin

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider"
)

const (
	echoed = "[redacted]"
	// minEcho is the length, in bytes, from which a credential is looked for: shorter ones occur in any text by chance.
	minEcho = 8
	// keyClientID is the one key of a nodePublishSecretRef by convention whose value is public (RFC 6749, 2.2), and without
	// which nobody understands why an identity was refused.
	keyClientID = "clientid"
)

// echoes finds the credentials of a request in what its provider says. Providers that print what they were asked into their
// errors exist, and such a text goes to logs, Events, conditions and the records on disk. It finds what is there letter by
// letter or quoted as Go and JSON do, by lines, so that a key is found whatever became of its line ends; not what is encoded or cut off.
func echoes(req *provider.Request) *strings.Replacer {
	var forms []string
	add := func(text string) {
		if len(text) < minEcho {
			return
		}
		forms = append(forms, text)
		for _, quoted := range []string{strconv.Quote(text), mustJSON(map[string]string{"": text})[len(`{"":`):]} {
			quoted = strings.TrimSuffix(quoted, "}") // of the JSON object
			if inside := quoted[1 : len(quoted)-1]; inside != text {
				forms = append(forms, inside)
			}
		}
	}
	for key, secret := range req.Secrets {
		if strings.EqualFold(key, keyClientID) {
			continue
		}
		for line := range strings.Lines(secret.Reveal()) {
			add(strings.TrimSpace(line))
		}
	}
	for _, token := range req.Tokens {
		add(token.Value.Reveal())
		for part := range strings.SplitSeq(token.Value.Reveal(), ".") {
			add(part)
		}
	}
	// Where two of them begin at the same place, the first one is taken.
	slices.SortFunc(forms, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	pairs := make([]string, 0, 2*len(forms))
	for _, form := range forms {
		pairs = append(pairs, form, echoed)
	}
	return strings.NewReplacer(pairs...)
}

// withoutEchoes takes the credentials of a request out of how its provider ended the call, before anything is cut off.
func withoutEchoes(req *provider.Request, answer *v1alpha1.MountResponse, err error) error {
	if err == nil && answer.GetError().GetCode() == "" {
		return nil
	}
	found := echoes(req)
	if err == nil {
		answer.Error.Code = found.Replace(answer.Error.Code)
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	var details []protoadapt.MessageV1
	for _, detail := range st.Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok {
			continue // nobody reads it
		}
		for key, value := range info.GetMetadata() {
			info.Metadata[key] = found.Replace(value)
		}
		details = append(details, info)
	}
	plain := status.New(st.Code(), found.Replace(st.Message()))
	if detailed, err := plain.WithDetails(details...); err == nil {
		return detailed.Err()
	}
	return plain.Err() // an ErrorInfo can always be encoded
}
