package plugin

import (
	"context"
	"time"

	"google.golang.org/grpc/metadata"
)

// keyNotBefore carries Request.NotBefore beside the message, which has no field for it: providers that do not know it never see it.
const keyNotBefore = "keymount-not-before"

func withNotBefore(ctx context.Context, t time.Time) context.Context {
	if t.IsZero() {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, keyNotBefore, t.UTC().Format(time.RFC3339Nano))
}

// notBefore reads what withNotBefore wrote; zero if there is nothing that can be meant. Both sides are on one node and have one clock.
func notBefore(ctx context.Context) time.Time {
	values := metadata.ValueFromIncomingContext(ctx, keyNotBefore)
	if len(values) != 1 {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, values[0])
	if err != nil || t.After(time.Now()) {
		return time.Time{}
	}
	return t
}
