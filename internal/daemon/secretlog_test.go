package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

// A logged try is one step: what ended how, and the line that it makes, "" for none.
type loggedTry struct {
	volume, secret string
	action         publish.SecretAction
	err            *provider.Error
	want           string
}

func TestTheLogOfSecrets(t *testing.T) {
	const created, updated, again, failed = "INFO Kubernetes Secret created", "INFO Kubernetes Secret updated", "INFO Kubernetes Secret is as it should be again",
		"Kubernetes Secret could not be synced"
	fails := func(kind provider.Kind, remedy string) *provider.Error {
		return &provider.Error{Kind: kind, Message: "syncing Secret shop/tls", Remedy: remedy}
	}
	invalid, away, denied, another := fails(provider.Invalid, "change it"), fails(provider.Unavailable, ""), fails(provider.Denied, "grant create"), fails(provider.Denied, "grant patch")
	for name, steps := range map[string][]loggedTry{
		"what is done": {
			{"v", "tls", publish.SecretCreated, nil, created},
			{"v", "tls", publish.SecretKept, nil, ""},
			{"v", "tls", publish.SecretUpdated, nil, updated},
			{"v", "tls", publish.SecretOwned, nil, "DEBUG Kubernetes Secret has one more owner"},
		},
		"a failure that lasts": {
			{"v", "tls", 0, invalid, "WARN " + failed},
			{"v", "tls", 0, invalid, "DEBUG " + failed},
			{"v", "tls", 0, away, "WARN " + failed},
			{"v", "tls", 0, away, "DEBUG " + failed},
			{"v", "db", 0, away, "WARN " + failed},
			{"w", "tls", 0, away, "WARN " + failed},
			{"v", "tls", 0, nil, again},
			{"v", "tls", 0, nil, ""},
			{"v", "db", publish.SecretOwned, nil, again},
			{"w", "tls", publish.SecretCreated, nil, created},
			{"w", "tls", 0, nil, ""},
			{"v", "tls", 0, away, "WARN " + failed},
		},
		"a missing right": {
			{"v", "tls", 0, denied, "WARN " + failed},
			{"v", "db", 0, denied, "DEBUG " + failed},
			{"w", "tls", 0, denied, "DEBUG " + failed},
			{"w", "tls", 0, another, "DEBUG " + failed}, // denied, as before
			{"x", "tls", 0, another, "WARN " + failed},
			{"v", "db", 0, nil, again}, // it was read only
			{"v", "db", 0, denied, "DEBUG " + failed},
			{"v", "tls", publish.SecretCreated, nil, created},
			{"y", "tls", 0, denied, "WARN " + failed},
			{"y", "db", 0, fails(provider.Denied, ""), "WARN " + failed}, // nothing is known of what to do
			{"y", "web", 0, fails(provider.Denied, ""), "WARN " + failed},
		},
		"broken off": {
			{"v", "tls", 0, &provider.Error{Cause: fmt.Errorf("asking: %w", context.Canceled)}, ""},
			{"v", "tls", 0, nil, ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			l := newOutcomeLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
			for i, step := range steps {
				out.Reset()
				secretObservers{l}.ObserveSecret(t.Context(), outcomeOf(step))
				level, message, _ := strings.Cut(step.want, " ")
				line := out.String()
				if step.want == "" {
					if line != "" {
						t.Errorf("step %d: logged %s", i, line)
					}
					continue
				}
				for _, part := range []string{"level=" + level, fmt.Sprintf("msg=%q", message), "volume=" + step.volume, "pod=shop/web", "class=shop/db",
					"secret=" + step.secret, "took=2s"} {
					if !strings.Contains(line, part+" ") && !strings.HasSuffix(line, part+"\n") {
						t.Errorf("step %d: no %s in %s", i, part, line)
					}
				}
				if step.err != nil && !strings.Contains(line, step.err.Error()) || strings.Count(line, "\n") != 1 {
					t.Errorf("step %d: logged %s", i, line)
				}
			}
		})
	}
}

func outcomeOf(step loggedTry) publish.SecretOutcome {
	o := publish.SecretOutcome{Volume: &publish.Volume{ID: step.volume, Class: publish.Class{Namespace: "shop", Name: "db"}},
		Secret: step.secret, Action: step.action, Err: step.err, Took: 2 * time.Second}
	o.Volume.Request.Pod = provider.Pod{Namespace: "shop", Name: "web"}
	return o
}

// What is remembered is bounded, forgotten with its volume, and a name is as long in the log as one may be.
func TestWhatTheLogRemembersOfSecrets(t *testing.T) {
	var out strings.Builder
	l := newOutcomeLog(slog.New(slog.NewTextHandler(&out, nil)))
	away := &provider.Error{Kind: provider.Unavailable, Message: "no"}
	for i := range maxFailing + 100 {
		l.ObserveSecret(t.Context(), outcomeOf(loggedTry{volume: fmt.Sprint("v", i%10), secret: fmt.Sprint(i), err: away}))
	}
	if len(l.failing) != maxFailing {
		t.Errorf("%d are remembered", len(l.failing))
	}
	for i := range 10 {
		for _, err := range []error{away, nil} { // one that could not be unpublished is there still
			if l.Observe(t.Context(), publish.Outcome{Operation: publish.Unpublishing, Volume: &publish.Volume{ID: fmt.Sprint("v", i)}, Err: err}); err != nil && len(l.failing) == 0 {
				t.Error("forgotten too early")
			}
		}
	}
	if len(l.failing) != 0 {
		t.Errorf("kept of volumes that are gone: %d", len(l.failing))
	}
	out.Reset()
	l.ObserveSecret(t.Context(), outcomeOf(loggedTry{volume: "v", secret: strings.Repeat("\n\xff", 1<<20), err: away}))
	if line := out.String(); len(line) > 1000 || strings.Count(line, "\n") != 1 {
		t.Errorf("%d bytes: %.300q", len(line), line)
	}
}
