package providertest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"keymount/internal/provider"
)

func fileMode(bits uint32) fs.FileMode { return fs.FileMode(bits) & fs.ModePerm }

func testEveryFailure(t *testing.T, h *Harness) {
	names := []string{"alpha", "beta", "gamma", "delta"}
	ids := map[string]string{}
	for _, name := range names {
		h.Set(name, secretValue(name))
		ids[name] = fetch(t, h, h.Request(Alice, name)).Versions[0].ID
	}
	h.Break("alpha", provider.Denied)
	h.Break("gamma", provider.NotFound)
	req := h.Request(Alice, names...)
	var texts []string
	for range 2 {
		b, err := h.Provider.Fetch(patient(t), req)
		if b != nil || err == nil {
			t.Fatalf("got a bundle (%v) although two objects fail: %v", b != nil, err)
		}
		got := map[string]provider.Kind{}
		for _, e := range provider.ErrorsOf(err) {
			got[e.Object] = e.Kind
		}
		want := map[string]provider.Kind{ids["alpha"]: provider.Denied, ids["gamma"]: provider.NotFound}
		if !reflect.DeepEqual(got, want) || len(provider.ErrorsOf(err)) != len(want) {
			t.Errorf("failures %v, want %v: %v", got, want, err)
		}
		noSecrets(t, err.Error(), req)
		texts = append(texts, objects(err))
	}
	if texts[0] != texts[1] {
		t.Errorf("failures came in the order %s, then %s", texts[0], texts[1])
	}
}

func objects(err error) string {
	var out []string
	for _, e := range provider.ErrorsOf(err) {
		out = append(out, e.Object)
	}
	return strings.Join(out, " ")
}

func testKinds(t *testing.T, h *Harness) {
	h.Set("alpha", secretValue("alpha"))
	h.Set("beta", secretValue("beta"))
	id := fetch(t, h, h.Request(Alice, "beta")).Versions[0].ID
	for _, kind := range []provider.Kind{provider.NotFound, provider.Denied, provider.Throttled, provider.Unavailable} {
		t.Run(kind.String(), func(t *testing.T) {
			h.Break("beta", kind)
			req := h.Request(Alice, "alpha", "beta")
			b, err := h.Provider.Fetch(patient(t), req)
			if b != nil || provider.KindOf(err) != kind {
				t.Errorf("kind %v, want %v, and no bundle: %v", provider.KindOf(err), kind, err)
			}
			for _, e := range provider.ErrorsOf(err) {
				if e.Object != id || !strings.Contains(e.Message, "beta") {
					t.Errorf("the failure is of %q, want %q, and its text has to name it: %q", e.Object, id, e.Message)
				}
				for _, text := range []string{e.Error(), fmt.Sprintf("%+v", e), fmt.Sprintf("%#v", e)} {
					noSecrets(t, text, req)
				}
			}
			h.Mend("beta")
			if got := read(fetch(t, h, req))["beta"]; got != secretValue("beta") {
				t.Error("the mended object does not have its value")
			}
		})
	}
}

func testEnded(t *testing.T, h *Harness) {
	h.Set("alpha", secretValue("alpha"))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	passed, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	for _, ctx := range []context.Context{cancelled, passed} {
		b, err := h.Provider.Fetch(ctx, h.Request(Alice, "alpha"))
		if b != nil || err == nil || provider.KindOf(err) != provider.Unavailable {
			t.Errorf("%v gave a bundle (%v) or kind %v: %v", ctx.Err(), b != nil, provider.KindOf(err), err)
		}
	}
}

// An outcome is what came of a call in another goroutine.
type outcome struct {
	bundle *provider.Bundle
	err    error
}

func begin(ctx context.Context, h *Harness, req *provider.Request) <-chan outcome {
	out, started := make(chan outcome, 1), make(chan struct{})
	go func() {
		close(started)
		b, err := h.Provider.Fetch(ctx, req)
		out <- outcome{b, err}
	}()
	<-started
	return out
}

func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
		panic("unreachable")
	}
}

func testCancel(t *testing.T, h *Harness) {
	h.Set("alpha", secretValue("alpha"))
	reached, release := h.Hold("alpha")
	t.Cleanup(release)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	leaving := begin(ctx, h, h.Request(Alice, "alpha"))
	await(t, "the read to start", reached)
	staying := begin(patient(t), h, h.Request(Alice, "alpha"))
	cancel()
	// The read is still held, so it is the cancellation that ends the call.
	got := await(t, "the cancelled call to return", leaving)
	if got.bundle != nil || provider.KindOf(got.err) != provider.Unavailable || !errors.Is(got.err, context.Canceled) {
		t.Errorf("the cancelled call gave kind %v: %v", provider.KindOf(got.err), got.err)
	}
	release()
	if got := await(t, "the other call", staying); got.err != nil || read(got.bundle)["alpha"] != secretValue("alpha") {
		t.Errorf("the other call failed: %v", got.err)
	}
}

func testConcurrent(t *testing.T, h *Harness) {
	names := []string{"alpha", "beta", "gamma", "delta"}
	for _, name := range names {
		h.Set(name, secretValue(name))
	}
	h.Break("delta", provider.NotFound)
	var calls []<-chan outcome
	for i := range 32 {
		who := Alice
		if i%2 == 1 {
			who = Bob
		}
		calls = append(calls, begin(patient(t), h, h.Request(who, names[i%4], names[(i+1)%4])))
	}
	for i, call := range calls {
		got := await(t, "a call", call)
		if i%4 >= 2 { // it asks for delta too
			if got.bundle != nil || provider.KindOf(got.err) != provider.NotFound {
				t.Errorf("call %d: kind %v: %v", i, provider.KindOf(got.err), got.err)
			}
			continue
		}
		want := map[string]string{names[i%4]: secretValue(names[i%4]), names[i%4+1]: secretValue(names[i%4+1])}
		if got.err != nil || !reflect.DeepEqual(read(got.bundle), want) {
			t.Errorf("call %d got another's answer, or none: %v", i, got.err)
		}
	}
}

func testDenied(t *testing.T, h *Harness) {
	h.Set("alpha", secretValue("alpha"))
	h.Set("beta", secretValue("beta"))
	h.Forbid(Bob, "alpha")
	mustBeDenied(t, h, Bob)
	for range 2 {
		if got := read(fetch(t, h, h.Request(Alice, "alpha")))["alpha"]; got != secretValue("alpha") {
			t.Error("who may read did not get the value")
		}
		mustBeDenied(t, h, Bob)
	}
	if got := read(fetch(t, h, h.Request(Bob, "beta")))["beta"]; got != secretValue("beta") {
		t.Error("an object that both may read was not given to the other")
	}
	h.Forbid(Alice, "beta")
	if got := read(fetch(t, h, h.Request(Bob, "beta")))["beta"]; got != secretValue("beta") {
		t.Error("what one may not read was kept from the other")
	}
}

func mustBeDenied(t *testing.T, h *Harness, who Who) {
	t.Helper()
	checkDenied(t, outcomeOf(h.Provider.Fetch(patient(t), h.Request(who, "alpha"))))
}

func outcomeOf(b *provider.Bundle, err error) outcome { return outcome{b, err} }

func checkDenied(t *testing.T, got outcome) {
	t.Helper()
	if got.bundle != nil || provider.KindOf(got.err) != provider.Denied {
		t.Errorf("who may not read got a bundle (%v) or kind %v: %v", got.bundle != nil, provider.KindOf(got.err), got.err)
	}
}

// While the read of the one who may is under way, the other asks for the same object: a provider that shares reads without
// asking who wants them answers both alike.
func testDeniedTogether(t *testing.T, h *Harness) {
	h.Set("alpha", secretValue("alpha"))
	h.Forbid(Bob, "alpha")
	reached, release := h.Hold("alpha")
	t.Cleanup(release)
	alice := begin(patient(t), h, h.Request(Alice, "alpha"))
	await(t, "the read to start", reached)
	var bobs []<-chan outcome
	for range 8 {
		bobs = append(bobs, begin(patient(t), h, h.Request(Bob, "alpha")))
	}
	for range 1000 { // nothing says that a call waits for another's read; by now most have come that far
		runtime.Gosched()
	}
	release()
	if got := await(t, "who may read", alice); got.err != nil || read(got.bundle)["alpha"] != secretValue("alpha") {
		t.Errorf("who may read failed: %v", got.err)
	}
	for _, bob := range bobs {
		checkDenied(t, await(t, "who may not read", bob))
	}
}
