package daemon

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/volume"
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

// A class that is annotated wrongly warns at each refresh of each of its volumes: the log has it once for each.
func TestAWarningIsToldOncePerVolume(t *testing.T) {
	var out strings.Builder
	l := newOutcomeLog(slog.New(slog.NewTextHandler(&out, nil)))
	fetched := func(warnings ...string) publish.Result { return publish.Result{Fetched: true, Warnings: warnings} }
	for i, step := range []struct {
		volume string
		op     publish.Operation
		result publish.Result
		err    error
		lines  int
	}{
		{"a", publish.Publishing, fetched("odd mode"), nil, 1},
		{"a", publish.Publishing, fetched("odd mode"), nil, 0},
		{"b", publish.Publishing, fetched("odd mode"), nil, 1},
		{"a", publish.Publishing, publish.Result{}, nil, 0}, // nothing was due
		{"a", publish.Publishing, publish.Result{}, errors.New("refused"), 0},
		{"a", publish.Publishing, fetched("odd mode", "no key"), nil, 1},
		{"a", publish.Publishing, fetched(), nil, 0},
		{"a", publish.Publishing, fetched("no key"), nil, 1},
		{"a", publish.Unpublishing, publish.Result{}, nil, 0},
		{"a", publish.Publishing, fetched("no key"), nil, 1},
		{"b", publish.Unpublishing, publish.Result{}, nil, 0},
		{"a", publish.Unpublishing, publish.Result{}, nil, 0},
	} {
		out.Reset()
		l.Observe(t.Context(), publish.Outcome{Operation: step.op, Volume: &publish.Volume{ID: step.volume}, Held: true, Result: step.result, Err: step.err})
		if n := strings.Count(out.String(), "volume has a warning"); n != step.lines {
			t.Errorf("step %d: %d lines, want %d: %s", i, n, step.lines, &out)
		}
	}
	if len(l.warned) != 0 {
		t.Errorf("kept of volumes that are gone: %v", l.warned)
	}
}

// Who reads that a volume could not be refreshed reads also when it was, even if nothing had changed.
func TestRecoveryIsTold(t *testing.T) {
	var out strings.Builder
	l := newOutcomeLog(slog.New(slog.NewTextHandler(&out, nil)))
	kept, undone := &publish.Error{State: publish.Kept, Cause: errors.New("refused")}, &publish.Error{State: publish.Undone, Cause: errors.New("refused")}
	fetched, changed := publish.Result{Fetched: true}, publish.Result{Fetched: true, Change: volume.Change{Added: []string{"a"}}}
	for i, step := range []struct {
		volume string
		op     publish.Operation
		result publish.Result
		err    error
		want   string
	}{
		{"a", publish.Publishing, fetched, nil, ""},
		{"a", publish.Publishing, publish.Result{}, kept, "could not be refreshed"},
		{"b", publish.Publishing, fetched, nil, ""},
		{"a", publish.Publishing, publish.Result{}, nil, ""}, // nothing was due
		{"a", publish.Publishing, publish.Result{}, kept, "could not be refreshed"},
		{"a", publish.Publishing, fetched, nil, "volume is refreshed again"},
		{"a", publish.Publishing, fetched, nil, ""},
		{"a", publish.Publishing, publish.Result{}, kept, "could not be refreshed"},
		{"a", publish.Publishing, changed, nil, "volume changed"},
		{"a", publish.Publishing, fetched, nil, ""},
		{"b", publish.Publishing, publish.Result{}, undone, ""},
		{"a", publish.Publishing, publish.Result{}, kept, "could not be refreshed"},
		{"a", publish.Unpublishing, publish.Result{}, nil, "volume removed"},
	} {
		out.Reset()
		l.Observe(t.Context(), publish.Outcome{Operation: step.op, Volume: &publish.Volume{ID: step.volume}, Held: true, Result: step.result, Err: step.err})
		if got := out.String(); strings.Count(got, "\n") != min(1, len(step.want)) || !strings.Contains(got, step.want) {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	if len(l.stale) != 0 {
		t.Errorf("kept of volumes that are gone: %v", l.stale)
	}
}
