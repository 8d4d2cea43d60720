package plugin_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider/plugin"
)

// versioned is somebody else's provider that says how it is.
type versioned struct {
	foreign
	version func(ctx context.Context) error // nil: it is well
}

func (v *versioned) Version(ctx context.Context, _ *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	if v.version != nil {
		if err := v.version(ctx); err != nil {
			return nil, err
		}
	}
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: "theirs\x1b", RuntimeVersion: "9"}, nil
}

// Changes are logged and the rest is not; providers that nobody has asked for anything are left alone.
func TestHealthIsLoggedWhenItChanges(t *testing.T) {
	a := folder(t)
	var sick error
	serveService(t, filepath.Join(a, "p.sock"), &versioned{foreign{mount: answering("1")}, func(context.Context) error { return sick }})
	serveService(t, filepath.Join(a, "idle.sock"), &versioned{})
	var log syncBuffer
	f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	f.CheckHealth(deadline(t))
	if len(f.Health()) != 0 {
		t.Errorf("health %v before anybody was connected", f.Health())
	}
	if _, err := askFor(t, f, "p"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		give    error
		healthy bool
		says    string // "" means nothing
	}{
		{nil, true, `msg="provider is healthy" provider=p runtime="theirs " version=9`},
		{nil, true, ""},
		{errors.New("no disk"), false, `msg="provider is not healthy" provider=p err="no disk"`},
		{errors.New("no disk"), false, ""},
		{nil, true, "provider is healthy"},
	} {
		sick = step.give
		before := log.String()
		f.CheckHealth(deadline(t))
		said := strings.TrimPrefix(log.String(), before)
		if (step.says == "") != (said == "") || !strings.Contains(said, step.says) {
			t.Errorf("said %q, want %q", said, step.says)
		}
		if want := map[string]bool{"p": step.healthy}; !maps.Equal(f.Health(), want) {
			t.Errorf("health %v, want %v", f.Health(), want)
		}
	}
}

// A provider that hangs holds up neither the calls to others, nor their first ones, nor its own. Upstream holds a lock.
func TestHealthCheckHoldsUpNobody(t *testing.T) {
	t.Attr("conformance", "10.1/18-health-check-blocks-nothing")
	a := folder(t)
	asked := make(chan struct{})
	var until time.Duration
	serveService(t, filepath.Join(a, "hung.sock"), &versioned{foreign{mount: answering("1")}, func(ctx context.Context) error {
		if deadline, ok := ctx.Deadline(); ok {
			until = time.Until(deadline)
		}
		close(asked)
		<-ctx.Done()
		return ctx.Err()
	}})
	serveForeign(t, filepath.Join(a, "other.sock"), answering("2"))
	f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a}})
	if _, err := askFor(t, f, "hung"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); f.CheckHealth(ctx) }()
	<-asked
	if until <= 0 || until > 5*time.Second { // deadlines travel with the call
		t.Errorf("the provider is given %v to answer", until)
	}
	for _, name := range []string{"other", "hung"} {
		if _, err := askFor(t, f, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	cancel()
	<-ended
	if len(f.Health()) != 0 {
		t.Errorf("a check that was ended says %v", f.Health())
	}
}

// The daemon's loop: it checks, and ends when it is told to.
func TestRun(t *testing.T) {
	a := folder(t)
	checked := make(chan struct{}, 1)
	serveService(t, filepath.Join(a, "p.sock"), &versioned{foreign{mount: answering("1")}, func(context.Context) error {
		select {
		case checked <- struct{}{}:
		default:
		}
		return nil
	}})
	f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a}, HealthEvery: time.Millisecond})
	if _, err := askFor(t, f, "p"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	<-checked
	<-checked
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
