package classes_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"keymount/internal/classes"
	"keymount/internal/provider"
	"keymount/internal/publish"
)

func annotate(name, value string) func(map[string]any) {
	return func(o map[string]any) {
		o["metadata"].(map[string]any)["annotations"] = map[string]any{name: value}
	}
}

func TestAnnotations(t *testing.T) {
	t.Attr("conformance", "10.3/parameters-can-be-locked")
	for _, tc := range []struct {
		name, annotation, value string
		want                    func(*classes.Class) bool
		warning                 string
	}{
		{"locked", "keymount.dev/lock-parameters", "true", func(c *classes.Class) bool { return c.LockParameters }, ""},
		{"not locked", "keymount.dev/lock-parameters", "false", func(c *classes.Class) bool { return !c.LockParameters }, ""},
		{"locked in capitals", "keymount.dev/lock-parameters", "True", func(c *classes.Class) bool { return c.LockParameters }, ""},
		{"not locked in capitals", "keymount.dev/lock-parameters", "FALSE", func(c *classes.Class) bool { return !c.LockParameters }, ""},
		{"not locked by nothing", "keymount.dev/lock-parameters", "", func(c *classes.Class) bool { return !c.LockParameters }, ""},
		{"locked by a word", "keymount.dev/lock-parameters", "yes", func(c *classes.Class) bool { return c.LockParameters }, `"yes"`},
		{"locked by a long word", "keymount.dev/lock-parameters", strings.Repeat("y", 5000), func(c *classes.Class) bool { return c.LockParameters && len(c.Warnings[0]) < 400 }, "..."},
		{"interval", "keymount.dev/rotation-poll-interval", "90s", func(c *classes.Class) bool { return c.RotationPollInterval == 90*time.Second }, ""},
		{"no unit", "keymount.dev/rotation-poll-interval", "90", func(c *classes.Class) bool { return c.RotationPollInterval == 0 }, "such as 5m"},
		{"empty", "keymount.dev/rotation-poll-interval", "", func(c *classes.Class) bool { return c.RotationPollInterval == 0 }, "such as 5m"},
		{"zero", "keymount.dev/rotation-poll-interval", "0s", func(c *classes.Class) bool { return c.RotationPollInterval == 0 }, "more than 0"},
		{"negative", "keymount.dev/rotation-poll-interval", "-1m", func(c *classes.Class) bool { return c.RotationPollInterval == 0 }, "more than 0"},
		{"overflow", "keymount.dev/rotation-poll-interval", "9999999999h", func(c *classes.Class) bool { return c.RotationPollInterval == 0 }, "such as 5m"},
		{"a long one", "keymount.dev/rotation-poll-interval", strings.Repeat("9", 5000), func(c *classes.Class) bool { return len(c.Warnings[0]) < 400 }, "..."},
		{"refresh", "keymount.dev/refresh", "now", func(c *classes.Class) bool { return c.Refresh == "now" }, ""},
		{"a long refresh", "keymount.dev/refresh", strings.Repeat("x", 5000), func(c *classes.Class) bool { return len(c.Refresh) == 71 }, ""},
		{"a slip", "keymount.dev/rotation-interval", "1m", func(c *classes.Class) bool { return c.RotationPollInterval == 0 }, "keymount.dev/rotation-interval; known are"},
		{"another's", "example.com/lock-parameters", "true", func(c *classes.Class) bool { return !c.LockParameters }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			r.put("ns", "c", annotate(tc.annotation, tc.value))
			c := r.get("c")
			if !tc.want(c) {
				t.Errorf("got %+v", c)
			}
			warned := slices.ContainsFunc(c.Warnings, func(w string) bool {
				return strings.Contains(w, tc.warning) && strings.Contains(w, tc.annotation) && strings.Contains(w, "ns/c")
			})
			if warned != (tc.warning != "") || len(c.Warnings) > 1 {
				t.Errorf("warnings are %q, want one with %q", c.Warnings, tc.warning)
			}
		})
	}
}

func TestLongRefreshesDiffer(t *testing.T) {
	r := newRig(t)
	r.put("ns", "c", annotate("keymount.dev/refresh", strings.Repeat("x", 5000)+"1"))
	before := r.get("c").Refresh
	r.put("ns", "c", annotate("keymount.dev/refresh", strings.Repeat("x", 5000)+"2"))
	if r.get("c").Refresh == before {
		t.Error("a change at the end of a long value is not seen")
	}
}

func TestCheck(t *testing.T) {
	spec := func(spec map[string]any) func(map[string]any) {
		return func(o map[string]any) { o["spec"] = spec }
	}
	for _, tc := range []struct {
		name string
		edit func(map[string]any)
		want string
	}{
		{"whole", nil, ""},
		{"no provider", spec(map[string]any{"parameters": map[string]any{"a": "b"}}), "provider not set in ns/c"},
		{"no parameters", spec(map[string]any{"provider": "azure"}), "parameters not set in ns/c"},
		{"empty parameters", spec(map[string]any{"provider": "azure", "parameters": map[string]any{}}), "parameters not set in ns/c"},
		{"nothing", spec(nil), "provider not set in ns/c"},
		{"no spec", func(o map[string]any) { delete(o, "spec") }, "provider not set in ns/c"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			r.put("ns", "c", tc.edit)
			err := r.get("c").Check()
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if provider.KindOf(err) != provider.Invalid || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestSpecsOfTheWrongForm(t *testing.T) {
	for name, spec := range map[string]any{
		"a string":                "x",
		"parameters with numbers": map[string]any{"provider": "azure", "parameters": map[string]any{"a": 1}},
		"parameters as a list":    map[string]any{"provider": "azure", "parameters": []any{"a"}},
		"provider as an object":   map[string]any{"provider": map[string]any{}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.put("ns", "c", func(o map[string]any) { o["spec"] = spec })
			if e := r.failure("c"); e.Kind != provider.Invalid || !strings.HasPrefix(e.Error(), "failed to get secretproviderclass ns/c, error: reading its spec") {
				t.Errorf("got %v", e)
			}
			r.Use("v", "ns", "c") // the watch tells the same
			r.run()
			r.awaitKept("ns", "c")
			if e := r.failure("c"); e.Kind != provider.Invalid {
				t.Errorf("the watch tells %v", e)
			}
		})
	}
}

func TestSecretObjects(t *testing.T) {
	r := newRig(t)
	r.put("ns", "c", func(o map[string]any) {
		o["spec"].(map[string]any)["secretObjects"] = []any{map[string]any{"secretName": " s\n", "type": "Opaque", "labels": map[string]any{"l": "1"},
			"annotations": map[string]any{"a": "2"}, "data": []any{map[string]any{"objectName": " f ", "key": "k "}, nil}}, nil}
	})
	got := r.get("c").Secrets
	want := []publish.SecretObject{{Name: "s", Type: "Opaque", Labels: map[string]string{"l": "1"}, Annotations: map[string]string{"a": "2"},
		Data: []publish.SecretKey{{File: "f", Key: "k"}, {}}}, {}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
