package classes_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"keymount/internal/classes"
)

// An author who changes the annotation all the time, removes the class or not, gets a few refreshes at once and then one each half minute; the last
// value counts in the end.
func TestWishesAreBounded(t *testing.T) {
	for _, removes := range []bool{false, true} {
		t.Run(fmt.Sprint("removes ", removes), func(t *testing.T) {
			var now atomic.Int64
			r := newRig(t, func(_ *server, c *classes.Config) { c.Now = func() time.Time { return time.Unix(now.Load(), 0) } })
			r.put("ns", "c", nil)
			r.Use("1", "ns", "c")
			r.run()
			r.awaitKept("ns", "c")
			seen, last := 0, r.get("c").Refresh
			look := func() {
				t.Helper()
				if class := r.get("c"); class.Refresh != last {
					seen, last = seen+1, class.Refresh
					if !class.RefreshChanged || class.RefreshSeen.Unix() != now.Load() {
						t.Errorf("%q is heeded at %d and was seen at %v", last, now.Load(), class.RefreshSeen)
					}
				}
			}
			const changes = 61
			for i := range changes { // one each second
				now.Add(1)
				if removes {
					r.remove("ns", "c")
					await(t, "the class is gone", func() bool { _, err := r.Get(t.Context(), "ns", "c"); return err != nil })
				}
				generation := int64(1)
				if !removes {
					generation += int64(i) + 1
				}
				r.put("ns", "c", func(object map[string]any) {
					object["metadata"].(map[string]any)["annotations"] = map[string]any{classes.Refresh: fmt.Sprint(i)}
				})
				await(t, "the change is told", func() bool {
					class, err := r.Get(t.Context(), "ns", "c")
					return err == nil && class.Generation == generation
				})
				look()
			}
			if want := 5 + changes/30; seen != want {
				t.Errorf("%d changes are heeded, want %d", seen, want)
			}
			now.Add(3600)
			look()
			if last != fmt.Sprint(changes-1) {
				t.Errorf("in the end %q is heeded", last)
			}
		})
	}
}
