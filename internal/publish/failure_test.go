package publish_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

// Every way in which a first mount can fail leaves nothing, and is final.
func TestFailedFirstMountLeavesNothing(t *testing.T) {
	t.Attr("conformance", "2.6/final-when-undone")
	for name, tc := range map[string]struct {
		provider provider.Provider
		change   func(*publish.Volume)
		want     string
		kind     provider.Kind
	}{
		"the fetch fails": {
			provider: failing(&provider.Error{Kind: provider.NotFound, Message: "no such secret"}), kind: provider.NotFound,
			want: "failed to mount secrets store objects for pod shop/web-1, err: no such secret",
		},
		"the provider writes itself and fails": {
			provider: selfWriter{func(_ context.Context, req *provider.Request) (*provider.Bundle, error) {
				if err := os.WriteFile(filepath.Join(req.TargetPath, "..data_tmp"), nil, 0o600); err != nil {
					return nil, err
				}
				return nil, errors.New("broken")
			}}, want: "broken",
		},
		"the provider panics": {
			provider: fetchFunc(func(context.Context, *provider.Request) (*provider.Bundle, error) { panic("secret bytes") }),
			want:     `provider "fake" stopped with a panic with a string`,
		},
		"the provider stumbles": {
			provider: fetchFunc(func(_ context.Context, req *provider.Request) (*provider.Bundle, error) {
				return nil, errors.New([]string{"x"}[len(req.TargetPath)])
			}), want: "index out of range",
		},
		"the provider answers nothing": {
			provider: fetchFunc(func(context.Context, *provider.Request) (*provider.Bundle, error) { return nil, nil }),
			want:     "answered nothing",
		},
		"the files cannot be": {
			provider: answering(content("v1", "a", "a/b")), kind: provider.Invalid, want: "a",
		},
		"the write fails": {
			provider: answering(content("v1", "a")), kind: provider.Invalid, want: "group -1",
			change: func(v *publish.Volume) { v.Group = new(int); *v.Group = -1 },
		},
		"the write of a provider that may write itself fails": {
			provider: selfWriter{answering(content("v1", "a"))}, kind: provider.Invalid, want: "group -1",
			change: func(v *publish.Volume) { v.Group = new(int); *v.Group = -1 },
		},
		"a provider that writes nothing says it wrote": {
			provider: answering(&provider.Bundle{SelfWritten: true}), want: "which it cannot have done",
		},
		"a provider hands over files and says it wrote them itself": {
			provider: selfWriter{answering(&provider.Bundle{SelfWritten: true, Files: content("v1", "a").Files})}, want: "which it cannot have done",
		},
		"there is no such provider": {
			change: func(v *publish.Volume) { v.Provider = "other" }, kind: provider.Invalid,
			want: `error connecting to provider "other": provider not found: provider "other"`,
		},
		"no provider": {change: func(v *publish.Volume) { v.Provider = "" }, kind: provider.Invalid, want: "provider not set in shop/db"},
		"no parameters": {change: func(v *publish.Volume) { v.Request.Parameters = nil }, kind: provider.Invalid,
			want: "parameters not set in shop/db"},
		"no id":                  {change: func(v *publish.Volume) { v.ID = "" }, kind: provider.Invalid, want: "no id"},
		"a target with a way up": {change: func(v *publish.Volume) { v.Target += "/x/.." }, kind: provider.Invalid, want: "not an absolute, clean path"},
		"the root folder":        {change: func(v *publish.Volume) { v.Target = "/" }, kind: provider.Invalid, want: "below the root folder"},
		"a relative target":      {change: func(v *publish.Volume) { v.Target = "mount" }, kind: provider.Invalid, want: `"mount"`},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if tc.provider != nil {
				b.provider = tc.provider
			}
			broken := b.v
			if tc.change != nil {
				tc.change(&broken)
			}
			_, err := b.Publish(t.Context(), broken)
			b.wantState(err, publish.Undone)
			if !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "secret bytes") || provider.KindOf(err) != tc.kind {
				t.Errorf("got %v (%v), want %v with %q", err, provider.KindOf(err), tc.kind, tc.want)
			}
			b.wantNothing()
			if _, ok := b.cfg.Registry.Get(b.v.ID); ok {
				t.Error("a record of what is not there")
			}
			b.serve(content("v1", "a", "sub/b"))
			b.mustPublish() // and the next one succeeds
			b.wantFiles(v1)
		})
	}
}

func answering(b *provider.Bundle) fetchFunc {
	return func(context.Context, *provider.Request) (*provider.Bundle, error) { return b, nil }
}

func failing(err error) fetchFunc {
	return func(context.Context, *provider.Request) (*provider.Bundle, error) { return nil, err }
}
