// Package providertest is the one behaviour suite that every provider.Provider passes, and a Fake, a real provider that
// keeps its objects in memory, for the tests of whoever uses providers. It is for tests only: no program imports it, and it
// imports nothing of the module but internal/provider. A Fake may be used from any number of goroutines; Run uses the
// provider from several at once.
package providertest

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"keymount/internal/provider"
)

// A Who is one of the identities that a harness has.
type Who string

// The identities of every harness. They have nothing in common: no token, secret, client or pod.
const (
	Alice Who = "alice"
	Bob   Who = "bob"
)

// A Harness is a provider and the means to change what it reads. Names of objects are letters and dashes. What a function
// changes holds for every Fetch that starts after it: a provider that serves somewhat older reads has to be set so that it
// does not. Functions may be called from any goroutine and report their own failures to the test.
type Harness struct {
	Provider provider.Provider
	// Request returns a new request of who for the objects in this order, each as one file of the object's name with its
	// value as contents. The class names no modes.
	Request func(who Who, objects ...string) *provider.Request
	// Set gives an object a value that is not the one it has, or makes it, for both identities to read.
	Set func(object, value string)
	// Break makes every read of an object fail: NotFound (it is gone), Denied, Throttled or Unavailable, as the source
	// itself would. Mend undoes it; the value is then that of the last Set.
	Break func(object string, kind provider.Kind)
	Mend  func(object string)
	// Forbid takes from one identity the right to read an object.
	Forbid func(who Who, object string)
	// Hold makes reads of an object wait in the source until release is called, which may be called more than once.
	// reached gets a value, or is closed, once a read waits.
	Hold func(object string) (reached <-chan struct{}, release func())
}

// patience bounds a test that would otherwise wait for ever; nothing is measured against it.
const patience = time.Minute

// Run runs the suite, each test on a harness of its own.
func Run(t *testing.T, start func(t *testing.T) *Harness) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, *Harness)
	}{
		{"a bundle is whole and in a stable order", testWhole},
		{"files have the default mode", testMode},
		{"a version changes with the content and not otherwise", testVersions},
		{"the request is left as it is", testRequestUnchanged},
		{"contents do not print", testRedacted},
		{"every failed object is reported", testEveryFailure},
		{"a failure has its kind and object and no secret", testKinds},
		{"a context that has ended is unavailable", testEnded},
		{"a cancelled call returns and disturbs nobody", testCancel},
		{"calls at once get their own answers", testConcurrent},
		{"who may not read is denied, before and after who may", testDenied},
		{"who may not read is denied, at the moment of who may", testDeniedTogether},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, start(t)) })
	}
}

func testWhole(t *testing.T, h *Harness) {
	want := map[string]string{}
	var names []string
	for i, name := range []string{"zeta", "alpha", "mid-dle", "beta", "yps", "gamma"} {
		value := secretValue(name) + strings.Repeat("\nmore", 1000*i)
		h.Set(name, value)
		want[name] = value
		names = append(names, name)
	}
	first := fetch(t, h, h.Request(Alice, names...))
	if got := read(first); !maps.Equal(got, want) {
		t.Errorf("files %v, want %v, or their contents differ", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	if len(first.Files) != len(names) || len(first.Versions) != len(names) || first.SelfWritten {
		t.Errorf("%d files and %d versions, want %d each, handed over", len(first.Files), len(first.Versions), len(names))
	}
	for _, v := range first.Versions {
		if v.ID == "" || v.Version == "" {
			t.Errorf("version %+v is not complete", v)
		}
	}
	for _, f := range first.Files {
		if f.Object != "" && first.VersionOf(f.Object) == "" {
			t.Errorf("file %s comes from %q, which has no version", f.Path, f.Object)
		}
	}
	for range 3 {
		again := fetch(t, h, h.Request(Alice, names...))
		if again.AsOf.After(time.Now()) {
			t.Errorf("the bundle is as of %v, which is to come", again.AsOf)
		}
		again.AsOf = first.AsOf
		if !reflect.DeepEqual(again, first) {
			t.Errorf("the same request gave %+v, then %+v", first, again)
		}
	}
}

func testMode(t *testing.T, h *Harness) {
	h.Set("alpha", secretValue("alpha"))
	for _, mode := range []uint32{0o644, 0o400, 0o777} {
		req := h.Request(Alice, "alpha")
		req.DefaultMode = fileMode(mode)
		if got := fetch(t, h, req).Files[0].Mode; got != fileMode(mode) {
			t.Errorf("mode %o, want %o", got, mode)
		}
	}
}

func testVersions(t *testing.T, h *Harness) {
	h.Set("alpha", secretValue("alpha"))
	h.Set("beta", secretValue("beta"))
	before := fetch(t, h, h.Request(Alice, "alpha", "beta"))
	req := h.Request(Alice, "alpha", "beta")
	req.Mounted = before.Versions
	same := fetch(t, h, req)
	if !reflect.DeepEqual(before.Versions, same.Versions) {
		t.Errorf("versions went from %v to %v, the contents did not", before.Versions, same.Versions)
	}
	h.Set("alpha", "changed "+secretValue("alpha"))
	after := fetch(t, h, req)
	if len(before.Versions) != 2 || len(after.Versions) != 2 {
		t.Fatalf("%d and %d versions, want 2", len(before.Versions), len(after.Versions))
	}
	if got := read(after)["alpha"]; got != "changed "+secretValue("alpha") {
		t.Error("the new value is not there")
	}
	if before.Versions[0].ID != after.Versions[0].ID || before.Versions[0].Version == after.Versions[0].Version {
		t.Errorf("the changed object went from %v to %v", before.Versions[0], after.Versions[0])
	}
	if before.Versions[1] != after.Versions[1] {
		t.Errorf("the object left alone went from %v to %v", before.Versions[1], after.Versions[1])
	}
}

func testRequestUnchanged(t *testing.T, h *Harness) {
	h.Set("alpha", secretValue("alpha"))
	h.Set("beta", secretValue("beta"))
	h.Break("beta", provider.NotFound)
	for _, names := range [][]string{{"alpha"}, {"alpha", "beta"}} {
		req := h.Request(Alice, names...)
		want := *req
		want.Parameters, want.Secrets, want.Tokens = maps.Clone(req.Parameters), maps.Clone(req.Secrets), maps.Clone(req.Tokens)
		want.Mounted = slices.Clone(req.Mounted)
		if _, err := h.Provider.Fetch(patient(t), req); (err != nil) != (len(names) == 2) {
			t.Errorf("fetching %v: %v", names, err)
		}
		if !reflect.DeepEqual(*req, want) {
			t.Errorf("the request for %v was changed: %+v, was %+v", names, *req, want)
		}
	}
}

func testRedacted(t *testing.T, h *Harness) {
	h.Set("alpha", secretValue("alpha"))
	b := fetch(t, h, h.Request(Alice, "alpha"))
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "bundle", b)
	for _, text := range []string{fmt.Sprint(b), fmt.Sprintf("%#v", b), fmt.Sprintf("%x", b.Files[0].Contents), log.String()} {
		noSecrets(t, text, h.Request(Alice, "alpha"))
	}
}

func fetch(t *testing.T, h *Harness, req *provider.Request) *provider.Bundle {
	t.Helper()
	b, err := h.Provider.Fetch(patient(t), req)
	if err != nil {
		t.Fatalf("fetching: %v", err)
	}
	return b
}

func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func read(b *provider.Bundle) map[string]string {
	out := map[string]string{}
	for _, f := range b.Files {
		out[f.Path] = string(f.Contents)
	}
	return out
}

const marker = "s3cret-of-"

// secretValue is the value of an object, and every value starts or ends so: noSecrets looks for the marker.
func secretValue(object string) string { return marker + object }

// noSecrets fails the test if text holds a value of an object, or a credential of the request.
func noSecrets(t *testing.T, text string, req *provider.Request) {
	t.Helper()
	hidden := []string{marker, fmt.Sprintf("%x", marker)}
	for _, token := range req.Tokens {
		hidden = append(hidden, token.Value.Reveal())
	}
	for _, secret := range req.Secrets {
		hidden = append(hidden, secret.Reveal())
	}
	for _, h := range hidden {
		if h != "" && strings.Contains(text, h) {
			t.Errorf("a secret is in the text %q", strings.ReplaceAll(text, h, "<HERE>"))
		}
	}
}
