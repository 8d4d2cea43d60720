package plugin

import (
	"context"
	"time"

	"google.golang.org/grpc/metadata"
)

// keyNotBefore carries Request.NotBefore beside the message, which has no field for it: providers that do not know it never see it.
const keyNotBefore = "keymount-not-before"

// withNotBefore tells the time as the clock counts now: it may have been set since, and a time ahead would count for nothing.
func withNotBefore(ctx context.Context, t time.Time) context.Context {
	if t.IsZero() {
		return ctx
	}
	now := time.Now()
	return metadata.AppendToOutgoingContext(ctx, keyNotBefore, now.Add(-now.Sub(t)).UTC().Format(time.RFC3339Nano))
}

// notBefore reads what withNotBefore wrote; zero if there is nothing that can be meant. Both sides are on one node and have one clock. The time
// that is returned can be compared with others of this process after that clock is set.
func notBefore(ctx context.Context) time.Time {
	values := metadata.ValueFromIncomingContext(ctx, keyNotBefore)
	if len(values) != 1 {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, values[0])
	now := time.Now()
	if err != nil || t.IsZero() || t.After(now) {
		return time.Time{}
	}
	return now.Add(-now.Sub(t))
}
