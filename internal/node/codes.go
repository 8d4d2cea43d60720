package node

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

// codeOf is the one place where the outcome of a call becomes a gRPC status; nil where kubelet is told OK.
//
// Kubelet takes Canceled, DeadlineExceeded, Unavailable, ResourceExhausted and Aborted as "something may be left": it keeps
// the target's folder and unmounts later. Every other code is final, and it removes the folder (kubernetes,
// pkg/volume/csi/csi_client.go, isFinalError). So the code follows from what was left behind, whatever the cause; a
// provider's own code never gets here. A volume that keeps its files is OK: an error would be a FailedMount on a pod that
// runs well, and who is to know is told by an Event, a metric and a condition.
func codeOf(err error) error {
	var failed *publish.Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &failed):
		return status.Error(codes.Unavailable, bound(err.Error()))
	}
	switch failed.State {
	case publish.Kept:
		return nil
	case publish.Left:
		return status.Error(pending(err), bound(err.Error()))
	}
	return status.Error(final(provider.KindOf(err)), bound(err.Error()))
}

// maxMessage bounds a text that goes to kubelet, in bytes. Kubelet makes an Event of it, which takes 1 KiB.
const maxMessage = 4 << 10

func bound(text string) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= maxMessage {
		return text
	}
	cut := maxMessage
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "..."
}

// pending is the non-final code of a call that left something.
func pending(err error) codes.Code {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	return codes.Unavailable
}

// final is the final code of a kind.
func final(kind provider.Kind) codes.Code {
	switch kind {
	case provider.Invalid:
		return codes.InvalidArgument
	case provider.NotFound:
		return codes.NotFound
	case provider.Denied:
		return codes.PermissionDenied
	case provider.Throttled, provider.Unavailable:
		return codes.FailedPrecondition // Unavailable and ResourceExhausted would say that something is left
	}
	return codes.Internal
}
