package daemon

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/volume/registry"
)

// A right that is missing, or a state folder that is full, fails every volume of a node at each refresh: it is told once, and
// anew when it comes back.
func TestWhatFailsEveryVolumeIsToldOnce(t *testing.T) {
	denied := &provider.Error{Kind: provider.Denied, Message: "writing the status", Remedy: "grant create"}
	another := &provider.Error{Kind: provider.Denied, Message: "writing the Secret", Remedy: "grant patch"}
	full := &provider.Error{Kind: provider.Internal, Message: "saving record", Remedy: "make room", Cause: registry.ErrUnwritten}
	var out strings.Builder
	l := newOutcomeLog(slog.New(slog.NewTextHandler(&out, nil)))
	for _, step := range []struct {
		unfinished []error
		lines      int
	}{
		{[]error{denied}, 1},
		{[]error{denied}, 0},
		{[]error{denied, another}, 1},
		{[]error{denied, errors.New("disk full")}, 1},
		{[]error{errors.New("disk full")}, 1},
		{[]error{full}, 1},
		{[]error{full, denied}, 0},
		{nil, 0},
		{[]error{denied}, 1},
		{[]error{full}, 1},
	} {
		out.Reset()
		l.Observe(t.Context(), publish.Outcome{Volume: &publish.Volume{}, Held: true, Result: publish.Result{Fetched: true, Unfinished: step.unfinished}})
		if n := strings.Count(out.String(), "left unfinished"); n != step.lines {
			t.Errorf("%v: %d lines, want %d", step.unfinished, n, step.lines)
		}
	}
}
