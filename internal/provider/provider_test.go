package provider_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"keymount/internal/provider"
)

const hidden = "hunter2-the-secret"

// Every way of printing that the standard library offers must hide what the types hold, also inside other values.
func TestSecretsPrintAsRedacted(t *testing.T) {
	values := map[string]any{
		"contents":  provider.Contents(hidden),
		"sensitive": provider.Sensitive(hidden),
		"file":      provider.File{Path: "p", Contents: provider.Contents(hidden)},
		"bundle":    &provider.Bundle{Files: []provider.File{{Path: "p", Contents: provider.Contents(hidden)}}},
		"token":     provider.Token{Value: hidden},
		"request": provider.Request{
			Tokens:  map[string]provider.Token{"aud": {Value: hidden}},
			Secrets: map[string]provider.Sensitive{"clientsecret": hidden},
		},
	}
	for name, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%q", "%s", "%x", "%X", "%d", "%o", "%t"} {
			assertHidden(t, name+" "+verb, fmt.Sprintf(verb, v))
		}
		out, err := json.Marshal(v)
		if err != nil {
			t.Errorf("%s as JSON: %v", name, err)
		}
		assertHidden(t, name+" JSON", string(out))
		for _, handler := range []func(*strings.Builder) slog.Handler{
			func(b *strings.Builder) slog.Handler { return slog.NewTextHandler(b, nil) },
			func(b *strings.Builder) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var b strings.Builder
			slog.New(handler(&b)).Info("m", "v", v)
			assertHidden(t, name+" slog", b.String())
		}
	}
}

func assertHidden(t *testing.T, what, printed string) {
	t.Helper()
	hex := fmt.Sprintf("%x", hidden)
	bytes := strings.Trim(fmt.Sprint([]byte(hidden)), "[]")
	for _, leak := range []string{hidden, hex, strings.ToUpper(hex), bytes} {
		if strings.Contains(printed, leak) {
			t.Errorf("%s prints the secret: %s", what, printed)
		}
	}
	if !strings.Contains(printed, "redacted") {
		t.Errorf("%s does not say that something is hidden: %s", what, printed)
	}
}

func TestKindOf(t *testing.T) {
	denied := &provider.Error{Kind: provider.Denied, Message: "denied"}
	throttled := &provider.Error{Kind: provider.Throttled, Message: "throttled"}
	for _, tc := range []struct {
		name string
		err  error
		want provider.Kind
	}{
		{"plain", errors.New("x"), provider.Internal},
		{"one", denied, provider.Denied},
		{"wrapped", fmt.Errorf("mounting: %w", denied), provider.Denied},
		{"several: what a retry cannot mend decides", provider.Errors{throttled, denied}, provider.Denied},
		{"the order does not matter", provider.Errors{denied, throttled}, provider.Denied},
		{"deadline", fmt.Errorf("reading: %w", context.DeadlineExceeded), provider.Unavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := provider.KindOf(tc.err); got != tc.want {
				t.Errorf("KindOf(%v) = %v, want %v", tc.err, got, tc.want)
			}
		})
	}
}

func TestKindNamesRoundTrip(t *testing.T) {
	for k := provider.Internal; k <= provider.Unavailable; k++ {
		got, ok := provider.ParseKind(k.String())
		if !ok || got != k {
			t.Errorf("ParseKind(%q) = %v, %v", k.String(), got, ok)
		}
	}
	if _, ok := provider.ParseKind("no such kind"); ok {
		t.Error("an unknown name parsed")
	}
}

func TestErrorsOfFindsEveryFailure(t *testing.T) {
	both := provider.Errors{{Message: "a", Remedy: "do b"}, {Message: "c"}}
	if got := provider.ErrorsOf(fmt.Errorf("mounting: %w", both)); len(got) != 2 {
		t.Errorf("got %d failures, want 2", len(got))
	}
	if got := provider.ErrorsOf(errors.New("plain")); len(got) != 1 || got[0].Kind != provider.Internal {
		t.Errorf("a plain error gave %v", got)
	}
	if got := both.Error(); got != "a (do b)\nc" {
		t.Errorf("text is %q", got)
	}
	if !errors.Is(both, both[1]) {
		t.Error("errors.Is does not see the second failure")
	}
}
