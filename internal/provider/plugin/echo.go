package plugin

import (
	"cmp"
	"encoding/json"
	"maps"
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
	// maxQuotings is how often a text is looked for that was quoted and quoted again. The secrets of a request are JSON
	// already, that is put into an error with %q, and that into a line of a log.
	maxQuotings = 3
	// maxForms bounds all that is looked for, in bytes, with perForm for what a search costs beside each form. It is far above
	// what credentials of a usual size take. A Secret can have 1 MiB, a search costs about eight times the memory of what it
	// looks for, and any number of pods can fail at the same moment.
	maxForms = 1 << 20
	perForm  = 64
)

// echoes finds the credentials of a request in what its provider says. Providers that print what they were asked into their
// errors exist, and such a text goes to logs, Events, conditions and the records on disk. It finds what is there letter by
// letter or quoted as Go and JSON do, by lines, so that a key is found whatever became of its line ends; not what is encoded or cut off.
//
// Where credentials are so large that looking for them would cost too much, nothing of the text is repeated.
func echoes(req *provider.Request) func(string) string {
	forms, room := map[string]bool{}, maxForms
	add := func(text string) {
		if len(text) < minEcho || room <= 0 {
			return
		}
		last := []string{text}
		for range maxQuotings + 1 {
			var next []string
			for _, form := range last {
				if forms[form] {
					continue
				}
				if room -= len(form) + perForm; room <= 0 {
					return
				}
				forms[form] = true
				next = append(next, inside(strconv.Quote(form)), inside(mustEncode(form)))
			}
			last = next
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
	if room <= 0 {
		return func(string) string {
			return echoed + ": the pod's credentials are too large to be looked for in what the provider says"
		}
	}
	// Where two of them begin at the same place, the first one is taken.
	longest := slices.SortedFunc(maps.Keys(forms), func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	pairs := make([]string, 0, 2*len(longest))
	for _, form := range longest {
		pairs = append(pairs, form, echoed)
	}
	return strings.NewReplacer(pairs...).Replace
}

func inside(quoted string) string { return quoted[1 : len(quoted)-1] }

// mustEncode writes a string as JSON, which cannot fail.
func mustEncode(text string) string {
	out, err := json.Marshal(text)
	if err != nil {
		panic("encoding a string: " + err.Error())
	}
	return string(out)
}

// withoutEchoes takes the credentials of a request out of how its provider ended the call, before anything is cut off.
func withoutEchoes(req *provider.Request, answer *v1alpha1.MountResponse, err error) error {
	if err == nil && answer.GetError().GetCode() == "" {
		return nil
	}
	found := echoes(req)
	if err == nil {
		answer.Error.Code = found(answer.Error.Code)
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
			info.Metadata[key] = found(value)
		}
		details = append(details, info)
	}
	plain := status.New(st.Code(), found(st.Message()))
	if detailed, err := plain.WithDetails(details...); err == nil {
		return detailed.Err()
	}
	return plain.Err() // an ErrorInfo can always be encoded
}
