package plugin

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
)

// What cannot be meant counts for nothing, so that reads are shared as ever; nobody can ask for what is newer than now.
func TestNotBeforeOfAnybody(t *testing.T) {
	now := time.Now()
	for name, values := range map[string][]string{
		"none": nil, "empty": {""}, "two": {now.Format(time.RFC3339Nano), now.Format(time.RFC3339Nano)}, "no time": {"now"},
		"another form": {now.Format(time.RFC1123)}, "to come": {now.Add(time.Hour).Format(time.RFC3339Nano)}, "far ahead": {"9999-12-31T23:59:59Z"},
		"the zero time": {"0001-01-01T00:00:00Z"}, "long": {strings.Repeat("9", 1<<16)},
	} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{keyNotBefore: values})
		if got := notBefore(ctx); !got.IsZero() {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, text := range []string{"1970-01-01T00:00:00Z", "0001-01-02T00:00:00Z"} { // so old that it says nothing
		if got := notBefore(metadata.NewIncomingContext(t.Context(), metadata.Pairs(keyNotBefore, text))); got.After(now.Add(-24 * time.Hour)) {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// Between the two sides, and later, the clock may be set: what is compared with reads of the provider's counts by its steady clock.
func TestNotBeforeIsSteady(t *testing.T) {
	sent := time.Now().Add(-3 * time.Second)
	md, _ := metadata.FromOutgoingContext(withNotBefore(context.Background(), sent))
	got := notBefore(metadata.NewIncomingContext(t.Context(), md))
	if !strings.Contains(got.String(), "m=") {
		t.Errorf("%v has no reading of the steady clock", got)
	}
	if d := got.Sub(sent).Abs(); d > 100*time.Millisecond {
		t.Errorf("%v came as %v", sent, got)
	}
}

// As of when a bundle is comes with it, from providers of ours; what others say counts for nothing unless it can be meant.
func TestAsOf(t *testing.T) {
	for name, values := range map[string][]string{"none": nil, "no time": {"now"}, "to come": {time.Now().Add(time.Hour).Format(time.RFC3339Nano)}, "two": {"2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"}} {
		if got := asOf(metadata.MD{keyAsOf: values}); !got.IsZero() {
			t.Errorf("%s: %v", name, got)
		}
	}
	read := time.Now().Add(-3 * time.Second)
	if d := asOf(metadata.Pairs(keyAsOf, stamp(read))).Sub(read).Abs(); d > 100*time.Millisecond {
		t.Errorf("came %v off", d)
	}
}
