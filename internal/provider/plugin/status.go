package plugin

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"keymount/internal/provider"
)

// Failures travel as a gRPC status with one google.rpc.ErrorInfo per failed object: reason is the kind's name, and the
// metadata are these.
const (
	errorDomain    = "keymount.dev"
	metaObject     = "object"
	metaMessage    = "message"
	metaRemedy     = "remedy"
	metaRetryAfter = "retryAfter" // a Go duration, such as "30s"
)

// codeOf is the gRPC code of a kind. Throttled is not Unavailable, because the driver calls an unavailable provider three
// times over.
func codeOf(kind provider.Kind) codes.Code {
	switch kind {
	case provider.Invalid:
		return codes.InvalidArgument
	case provider.NotFound:
		return codes.NotFound
	case provider.Denied:
		return codes.PermissionDenied
	case provider.Throttled:
		return codes.ResourceExhausted
	case provider.Unavailable:
		return codes.Unavailable
	}
	return codes.Internal
}

// kindOf is the kind of a status that says nothing of kinds. Providers use codes as they please (most answer Unknown to
// everything), so only what gRPC itself says counts.
func kindOf(code codes.Code) provider.Kind {
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return provider.Unavailable
	}
	return provider.Internal
}

// toStatus is the one place where an error of a provider becomes a gRPC status.
func toStatus(err error) *status.Status {
	failures := shorten(provider.ErrorsOf(err))
	var texts []string
	var details []protoadapt.MessageV1
	for _, e := range failures {
		texts = append(texts, e.Error())
		info := &errdetails.ErrorInfo{Reason: e.Kind.String(), Domain: errorDomain, Metadata: map[string]string{}}
		for key, value := range map[string]string{
			metaObject: e.Object, metaMessage: e.Message, metaRemedy: e.Remedy,
		} {
			if value != "" {
				info.Metadata[key] = value
			}
		}
		if e.RetryAfter > 0 {
			info.Metadata[metaRetryAfter] = e.RetryAfter.String()
		}
		details = append(details, info)
	}
	plain := status.New(codeOf(provider.KindOf(err)), clean(strings.Join(texts, "\n"), maxStatusBytes))
	detailed, err := plain.WithDetails(details...)
	if err != nil {
		return plain // the code is OK or a detail cannot be encoded: neither can be here
	}
	return detailed
}

// shorten bounds number and size of failures. What is left out is counted, under the kind that decides among it, so that
// the kind of the whole stays what it was.
func shorten(failures provider.Errors) provider.Errors {
	var rest provider.Errors
	if len(failures) > maxFailures {
		failures, rest = failures[:maxFailures-1], failures[maxFailures-1:]
	}
	out := make(provider.Errors, 0, len(failures)+1)
	for _, e := range failures {
		out = append(out, &provider.Error{
			Kind: e.Kind, Object: clean(e.Object, maxObjectBytes), Message: clean(e.Message, maxTextBytes),
			Remedy: clean(e.Remedy, maxTextBytes), RetryAfter: e.RetryAfter,
		})
	}
	if len(rest) > 0 {
		out = append(out, &provider.Error{Kind: provider.KindOf(rest), Message: fmt.Sprintf("%d more objects failed", len(rest))})
	}
	return out
}

// fromStatus is the one place where a gRPC status becomes an error of a provider: of the kinds that our own server wrote
// into it, or of the kind of its code. The status itself is not kept as a cause, because gRPC servers would find it there
// and pass the provider's code on as their own.
func fromStatus(st *status.Status) error {
	var failures provider.Errors
	for _, detail := range st.Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != errorDomain || len(failures) >= maxFailures {
			continue
		}
		kind, ok := provider.ParseKind(info.GetReason())
		if !ok {
			continue
		}
		failures = append(failures, failureOf(kind, info.GetMetadata(), st))
	}
	switch len(failures) {
	case 0:
		return &provider.Error{Kind: kindOf(st.Code()), Message: textOf(st)}
	case 1:
		return failures[0]
	}
	return failures
}

func failureOf(kind provider.Kind, metadata map[string]string, st *status.Status) *provider.Error {
	e := &provider.Error{
		Kind:    kind,
		Object:  clean(metadata[metaObject], maxObjectBytes),
		Message: clean(metadata[metaMessage], maxTextBytes),
		Remedy:  clean(metadata[metaRemedy], maxTextBytes),
	}
	if e.Message == "" {
		e.Message = textOf(st)
	}
	if after, err := time.ParseDuration(metadata[metaRetryAfter]); err == nil && after > 0 {
		e.RetryAfter = min(after, maxRetryAfter)
	}
	return e
}

// textOf is what a status says, with its code where that is all it says.
func textOf(st *status.Status) string {
	if text := clean(st.Message(), maxTextBytes); strings.TrimSpace(text) != "" {
		return text
	}
	return "the provider answered with code " + st.Code().String() + " and no text"
}
