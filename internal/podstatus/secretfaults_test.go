package podstatus_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

// A try that was under way when its volume was unpublished makes no object, and is not repeated for ever.
func TestAnOutcomeOfAVolumeThatIsGone(t *testing.T) {
	for name, kept := range map[string]bool{"with its object": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, b *bench) {
				b.run()
				v := asking(volumeOf("web", "db", "v"), "a")
				b.record(v, first("x=1"))
				b.Observe(t.Context(), publish.Outcome{Operation: publish.Unpublishing, Volume: &publish.Volume{ID: v.ID}})
				if kept {
					b.breaks(func(method, _ string) int { return map[string]int{"PATCH": 403}[method] })
				} else {
					b.mu.Lock()
					clear(b.objects)
					b.mu.Unlock()
				}
				b.asked()
				b.notSynced(v, "a", provider.Denied)
				time.Sleep(2 * time.Hour)
				asked := b.asked()
				if slices.ContainsFunc(asked, func(r string) bool { return strings.HasPrefix(r, "POST") }) || !kept && len(asked) > 2 || len(asked) == 0 {
					t.Errorf("asked %q", asked)
				}
				b.breaks(nil)
				time.Sleep(2 * time.Hour)
				b.wantAsked()
			})
		})
	}
}

func TestOutcomesThatSayNothing(t *testing.T) {
	for name, change := range map[string]func(o *publish.SecretOutcome){
		"broken off": func(o *publish.SecretOutcome) {
			o.Err.Cause = fmt.Errorf("asking: %w", context.Canceled)
		},
		"no pod":            func(o *publish.SecretOutcome) { o.Volume.Request.Pod = provider.Pod{} },
		"another pod's":     func(o *publish.SecretOutcome) { o.Volume.Request.Pod.UID = "before" },
		"another class's":   func(o *publish.SecretOutcome) { o.Volume.Class.Name = "before" },
		"at another target": func(o *publish.SecretOutcome) { o.Volume.Target = "/before" },
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, b *bench) {
				b.run()
				v := asking(volumeOf("web", "db", "v"), "a")
				b.record(v, first("x=1"))
				b.asked()
				o := publish.SecretOutcome{Volume: asking(v, "a"), Secret: "a", Err: &provider.Error{Kind: provider.Denied, Message: "no"}}
				change(&o)
				b.ObserveSecret(t.Context(), o)
				time.Sleep(time.Hour)
				b.wantAsked()
			})
		})
	}
}

func TestSecretsWithoutConditionsInTheDefinition(t *testing.T) {
	t.Attr("conformance", "12.1/without-conditions")
	in(t, func(t *testing.T, b *bench) {
		b.prunes = true
		v, w := asking(volumeOf("web", "db", "v"), "a"), asking(volumeOf("web2", "db", "v"), "a")
		b.record(v, first("x=1"))
		b.record(w, first("x=1"))
		b.restart()
		b.run()
		b.asked()
		for range 3 {
			for i, kind := range []provider.Kind{provider.Denied, provider.Invalid} {
				b.notSynced(v, "a", kind)
				time.Sleep(time.Minute)
				b.notSynced(w, "a", kind)
				time.Sleep(time.Minute)
				if asked := b.asked(); i > 0 && len(asked) > 0 {
					t.Errorf("asked %q", asked)
				}
			}
		}
		writes := 0
		b.mu.Lock()
		for _, body := range b.writes {
			writes += strings.Count(body, "SecretsSynced")
		}
		b.mu.Unlock()
		if n := strings.Count(b.logs.String(), "status.conditions"); writes != 1 || n != 1 {
			t.Errorf("%d writes, %d lines:\n%s", writes, n, b.logs)
		}
	})
}

// An admission plugin that takes one condition out of objects is not worked against.
func TestAdmissionThatDropsACondition(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		b.admits = func(o map[string]any) {
			status := o["status"].(map[string]any)
			list, _ := status["conditions"].([]any)
			status["conditions"] = slices.DeleteFunc(list, func(c any) bool { return c.(map[string]any)["type"] == "SecretsSynced" })
		}
		v := asking(volumeOf("web", "db", "v"), "a")
		b.record(v, first("x=1"))
		b.notSynced(v, "a", provider.Denied)
		time.Sleep(time.Minute)
		b.record(v, holds("x=1"))
		b.notSynced(v, "a", provider.Denied)
		time.Sleep(time.Hour)
		b.wantAsked("POST web-shop-db", "PATCH web-shop-db")
		if logs := b.logs.String(); logs != "" {
			t.Errorf("logged %s", logs)
		}
	})
}

// Nobody waits for what Run writes first, so that the log is where a missing right shows.
func TestAMissingRightForSecretsIsLoggedOnce(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		refuses := func(code int) {
			b.breaks(func(method, _ string) int { return map[string]int{http.MethodPatch: code}[method] })
		}
		var volumes []*publish.Volume
		for i := range 5 {
			v := asking(volumeOf(fmt.Sprint("web", i), "db", "v"), "a")
			b.record(v, first("x=1"))
			volumes = append(volumes, v)
		}
		for i, step := range []struct {
			code, lines int
		}{{503, 0}, {403, 1}, {0, 0}, {403, 1}} {
			before := strings.Count(b.logs.String(), "level=WARN")
			refuses(step.code)
			for _, v := range volumes {
				b.notSynced(v, "a", provider.Denied)
			}
			time.Sleep(10 * time.Minute)
			if n := strings.Count(b.logs.String(), "level=WARN") - before; n != step.lines {
				t.Errorf("step %d: %d lines, want %d:\n%s", i, n, step.lines, b.logs)
			}
			refuses(0)
			for _, v := range volumes {
				b.synced(v, "a")
			}
			time.Sleep(10 * time.Minute)
		}
		if logs := b.logs.String(); !strings.Contains(logs, "secretproviderclasses-role") {
			t.Errorf("no remedy: %s", logs)
		}
	})
}

func TestMessagesOfSecretsAreBounded(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		v := volumeOf("web", "db", "v")
		b.record(v, first("x=1"))
		for i := range 300 {
			name := fmt.Sprintf("s%03d", i)
			b.try(v, name, &provider.Error{Kind: provider.Denied, Message: "syncing Secret shop/" + name + ": " + strings.Repeat("é\n", 9000), Remedy: strings.Repeat("ü", 9000)})
		}
		b.try(v, strings.Repeat("\xff\n", 1<<20), &provider.Error{Kind: provider.Invalid, Message: "x"})
		time.Sleep(time.Minute)
		c := b.conditions()["SecretsSynced"]
		if len(c) > 1100 || !utf8.ValidString(c) || strings.Contains(c, "\n") || !strings.Contains(c, "shop/s000: é") || !strings.Contains(c, "...); not synced either: s001, ") ||
			!strings.HasSuffix(c, " more") {
			t.Errorf("%d bytes: %q", len(c), c)
		}
	})
}

func TestSecretsOfManyVolumesAtOnce(t *testing.T) {
	in(t, func(t *testing.T, b *bench) {
		b.run()
		const volumes = 40
		var all sync.WaitGroup
		for i := range volumes {
			v := asking(volumeOf(fmt.Sprintf("web%d", i), "db", "v"), "a", "b")
			all.Go(func() {
				b.record(v, first("x=1"))
				b.synced(v, "a")
				b.record(v, holds("x=1"))
			})
			all.Go(func() { b.notSynced(v, "b", provider.Denied) })
		}
		all.Wait()
		time.Sleep(time.Minute)
		for _, name := range b.names() {
			if c := b.object(name, "status", "conditions"); !strings.Contains(c, `"SecretsSynced"`) || !strings.Contains(c, `"UpToDate"`) {
				t.Errorf("%s: conditions %s", name, c)
			}
		}
		if names := b.names(); len(names) != volumes {
			t.Errorf("%d objects", len(names))
		}
	})
}
