//go:build integration && linux

package integration

import (
	"os"
	"path/filepath"
	"testing"
)

// Defects of upstream's driver in how it finds providers and stays connected. The driver searches MoreProviders first.
func TestRootDefectsOfProviders(t *testing.T) {
	r := newRig(t, append([]string{"--provider-health-check-interval=50ms"}, slowly...)...)
	for _, tc := range []struct {
		name string
		make func(r *rig, path string)
	}{
		{"stale", (*rig).abandoned},
		{"file", func(r *rig, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				r.Fatal(err)
			}
		}},
	} {
		t.Run("shadow/"+tc.name, func(t *testing.T) {
			t.Attr("conformance", "10.1/17-stale-socket-shadows-nobody")
			r := r.inside(t)
			tc.make(r, filepath.Join(r.driver.MoreProviders, tc.name+".sock"))
			r.scriptedClass(tc.name)
			v := r.volume(tc.name)
			r.mustPublish(v)
			r.wantFiles(v, map[string]string{"a": "a v1"})
		})
	}
	r.row("10.1/17-connections-follow", func(r *rig) {
		from := r.scriptedClass("mover")
		v := r.volume("mover")
		r.mustPublish(v)
		from.server.Stop()
		r.abandoned(from.path)
		to := r.provide(r.driver.MoreProviders, "mover")
		to.say(content("v2", "a"))
		r.refreshNow(v, "mover", to, "moved")
		r.wantFiles(v, map[string]string{"a": "a v2"})

		to.server.Stop() // and restarts where it was
		to.say(content("v3", "a"))
		to.start(r.T)
		r.refreshNow(v, "mover", to, "restarted")
		r.wantFiles(v, map[string]string{"a": "a v3"})
	})
	r.row("10.1/18-health-check-blocks-nothing", func(r *rig) {
		u := r.provideUnwell("unwell")
		r.class("unwell", "unwell", nil, "objects: x")
		r.mustPublish(r.volume("unwell"))
		<-u.asked
		r.scriptedClass("well") // one that nobody is connected to yet
		for _, class := range []string{"well", "unwell"} {
			r.mustPublish(r.volume(class))
		}
		select {
		case <-u.answered:
			r.Error("the mounts waited for the check to end")
		default:
		}
	})
}
