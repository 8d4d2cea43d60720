package plugin_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"

	"keymount/internal/provider/plugin"
)

// A parent is a context that counts those derived from it that nobody has ended: what context.WithTimeout and the like
// register with a parent of another type, they take back when they are cancelled.
type parent struct {
	context.Context
	mu          sync.Mutex
	live, total int
}

// Value hides what the context inside is, so that it is told of everything by AfterFunc.
func (p *parent) Value(any) any { return nil }

func (p *parent) AfterFunc(f func()) (stop func() bool) {
	p.mu.Lock()
	p.live++
	p.total++
	p.mu.Unlock()
	left := sync.OnceFunc(func() {
		p.mu.Lock()
		p.live--
		p.mu.Unlock()
	})
	unregister := context.AfterFunc(p.Context, func() { left(); f() })
	return func() bool { left(); return unregister() }
}

// The daemon's context lives as long as the process, so whatever a check leaves registered with it is never freed. Upstream
// leaves one timer and one context per provider and check.
func TestHealthCheckLeavesNothing(t *testing.T) {
	t.Attr("conformance", "10.1/18-health-check-leaks-nothing")
	a := folder(t)
	serveService(t, filepath.Join(a, "p.sock"), &versioned{foreign: foreign{mount: answering("1")}})
	f := foldersOf(t, plugin.FoldersConfig{Folders: []string{a}})
	if _, err := askFor(t, f, "p"); err != nil {
		t.Fatal(err)
	}
	ctx := &parent{Context: t.Context()}
	for range 20 {
		f.CheckHealth(ctx)
	}
	ctx.mu.Lock()
	defer ctx.mu.Unlock()
	if ctx.live > 0 || ctx.total < 20 || !f.Health()["p"] {
		t.Errorf("20 checks left %d of %d contexts; health %v", ctx.live, ctx.total, f.Health())
	}
}
