package classes_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"keymount/internal/classes"
)

// Whoever writes classes must not be able to have the driver killed for the memory that they take: what there is no room
// for is read when it is needed, and is as good.
func TestLargeClassesAreNotAllKept(t *testing.T) {
	r := newRig(t, func(_ *server, c *classes.Config) { c.MaxKept = 16 << 12 })
	large := func(object map[string]any) {
		object["spec"].(map[string]any)["parameters"] = map[string]any{"objects": strings.Repeat("x", 1<<12)}
	}
	const all = 18 // there is room for 15
	name := func(i int) string { return fmt.Sprintf("c%d", i) }
	for i := range all {
		r.put("ns", name(i), large)
		r.Use(fmt.Sprint(i), "ns", name(i))
	}
	r.run()
	await(t, "every class is watched", func() bool { return len(r.watches()) == all })
	kept := func() (n int) {
		for i := range all {
			if r.Kept("ns", name(i)) {
				n++
			}
		}
		return n
	}
	await(t, "those for which there is room are kept", func() bool { return kept() == 15 })
	for i := range all {
		r.put("ns", name(i), large)
	}
	for i := range all {
		await(t, "the change is seen", func() bool { return r.get(name(i)).Generation == 2 })
	}
	if n := kept(); n != 15 {
		t.Errorf("%d are kept, want 15", n)
	}
	if n := r.logs.count("too large to keep"); n != 1 {
		t.Errorf("told %d times, want once", n)
	}

	for i := range 15 { // the rest fits
		r.Release(fmt.Sprint(i))
	}
	for i := range all {
		if _, err := r.Get(context.Background(), "ns", name(i)); err != nil {
			t.Error(err)
		}
	}
	await(t, "the others are kept", func() bool { return kept() == 3 })
	for i := 15; i < all; i++ {
		r.put("ns", name(i), nil) // small again
		await(t, "the change is seen", func() bool { return r.get(name(i)).Generation == 3 && r.Kept("ns", name(i)) })
		r.Release(fmt.Sprint(i))
	}
	if n := r.KeptBytes(); n != 0 {
		t.Errorf("%d bytes are kept of no class", n)
	}
}
