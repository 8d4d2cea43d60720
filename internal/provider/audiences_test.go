package provider_test

import (
	"context"
	"maps"
	"slices"
	"testing"

	"keymount/internal/provider"
)

// recorder keeps the audiences of the last request.
type recorder struct{ got []string }

func (r *recorder) Fetch(_ context.Context, req *provider.Request) (*provider.Bundle, error) {
	r.got = slices.Sorted(maps.Keys(req.Tokens))
	return &provider.Bundle{}, nil
}

type writer struct {
	recorder
	may bool
}

func (w *writer) MayWriteTarget() bool { return w.may }

func TestAudiences(t *testing.T) {
	t.Attr("conformance", "12.4/audiences")
	restrict := provider.Audiences{"aws": {"sts.amazonaws.com", "other"}, "none": {}, "nil": nil}
	for _, tc := range []struct {
		name string
		want []string
	}{
		{"gcp", []string{"", "api", "sts.amazonaws.com"}},
		{"aws", []string{"sts.amazonaws.com"}},
		{"none", nil},
		{"nil", nil},
	} {
		req := &provider.Request{Tokens: map[string]provider.Token{"": {Value: "t"}, "api": {Value: "t"}, "sts.amazonaws.com": {Value: "t"}}}
		var r recorder
		if _, err := restrict.Restrict(tc.name, &r).Fetch(t.Context(), req); err != nil || !slices.Equal(r.got, tc.want) {
			t.Errorf("%s is given %q, want %q (%v)", tc.name, r.got, tc.want, err)
		}
		if len(req.Tokens) != 3 {
			t.Errorf("%s: the caller's request was changed", tc.name)
		}
	}
	if _, err := restrict.Restrict("aws", &recorder{}).Fetch(t.Context(), &provider.Request{}); err != nil {
		t.Error(err)
	}
}

// Restricting tokens leaves a provider what it is otherwise.
func TestAudiencesKeepTheTargetWriter(t *testing.T) {
	restrict := provider.Audiences{"p": nil}
	for _, tc := range []struct {
		p    provider.Provider
		want bool
	}{{&recorder{}, false}, {&writer{may: true}, true}, {&writer{may: false}, false}} {
		w, ok := restrict.Restrict("p", tc.p).(provider.TargetWriter)
		if got := ok && w.MayWriteTarget(); got != tc.want {
			t.Errorf("%T may write: %v", tc.p, got)
		}
	}
}
