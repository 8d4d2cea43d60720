package plugin

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Times travel beside the messages, which have no fields for them: providers and drivers that do not know them never see them.
const (
	// keyNotBefore carries Request.NotBefore to the provider.
	keyNotBefore = "keymount-not-before"
	// keyAsOf carries Bundle.AsOf to the driver.
	keyAsOf = "keymount-as-of"
)

// withNotBefore tells the time to the provider.
func withNotBefore(ctx context.Context, t time.Time) context.Context {
	if t.IsZero() {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, keyNotBefore, stamp(t))
}

// notBefore reads what withNotBefore wrote; zero if there is nothing that can be meant.
func notBefore(ctx context.Context) time.Time {
	return timeOf(metadata.ValueFromIncomingContext(ctx, keyNotBefore))
}

// tellAsOf tells the time to the driver.
func tellAsOf(ctx context.Context, t time.Time) error {
	if t.IsZero() {
		return nil
	}
	return grpc.SetHeader(ctx, metadata.Pairs(keyAsOf, stamp(t)))
}

// asOf reads what tellAsOf wrote.
func asOf(header metadata.MD) time.Time { return timeOf(header.Get(keyAsOf)) }

// stamp tells a time as the clock counts now: it may have been set since, and a time ahead would count for nothing.
func stamp(t time.Time) string {
	now := time.Now()
	return now.Add(-now.Sub(t)).UTC().Format(time.RFC3339Nano)
}

// timeOf reads what stamp wrote; zero if there is nothing that can be meant. Both sides are on one node and have one clock. The time that is
// returned can be compared with others of this process after that clock is set.
func timeOf(values []string) time.Time {
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
