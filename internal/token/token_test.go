package token_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"keymount/internal/provider"
	"keymount/internal/token"
)

func TestTheRequestProvesWithoutAsking(t *testing.T) {
	r := newRig(t)
	r.want(audience, server.sign(good(), nil), token.InSecrets, provider.ProvenByRequest)
	if len(r.counts) != 0 {
		t.Errorf("requests: %v", r.counts)
	}
}

// Whatever the origin, a token that is not this pod's own proves nothing.
func TestClaimsThatDoNotAgree(t *testing.T) {
	type m = map[string]any
	for name, edit := range map[string]func(c m){
		"another service account":       func(c m) { c["sub"] = "system:serviceaccount:ns:other" },
		"another namespace":             func(c m) { c["sub"] = "system:serviceaccount:other:sa" },
		"a user":                        func(c m) { c["sub"] = "sa" },
		"no subject":                    func(c m) { delete(c, "sub") },
		"subject is a list":             func(c m) { c["sub"] = []any{"system:serviceaccount:ns:sa"} },
		"no issuer":                     func(c m) { delete(c, "iss") },
		"empty issuer":                  func(c m) { c["iss"] = "" },
		"issuer is null":                func(c m) { c["iss"] = nil },
		"another pod":                   func(c m) { c["kubernetes.io"].(m)["pod"].(m)["uid"] = "uid-2" },
		"no pod":                        func(c m) { delete(c["kubernetes.io"].(m), "pod") },
		"pod uid elsewhere":             func(c m) { c["kubernetes.io"] = m{"uid": "uid-1"} },
		"pod is a string":               func(c m) { c["kubernetes.io"].(m)["pod"] = "uid-1" },
		"pod uid in other letters":      func(c m) { c["kubernetes.io"].(m)["pod"] = m{"UID": "uid-1"} },
		"no kubernetes claim":           func(c m) { delete(c, "kubernetes.io") },
		"another audience":              func(c m) { c["aud"] = []any{"sts.amazonaws.com"} },
		"audience as a part":            func(c m) { c["aud"] = []any{audience + "x"} },
		"no audience":                   func(c m) { delete(c, "aud") },
		"empty audiences":               func(c m) { c["aud"] = []any{} },
		"audience is a number":          func(c m) { c["aud"] = 1 },
		"audiences with a number":       func(c m) { c["aud"] = []any{audience, 1} },
		"expired":                       func(c m) { c["exp"] = epoch - 1 },
		"expires now":                   func(c m) { c["exp"] = epoch },
		"no expiry":                     func(c m) { delete(c, "exp") },
		"expiry is a string":            func(c m) { c["exp"] = "1900000000" },
		"expiry is absurd":              func(c m) { c["exp"] = 1e300 },
		"claims in other letters":       func(c m) { c["SUB"] = c["sub"]; delete(c, "sub") },
		"subject with a trailing colon": func(c m) { c["sub"] = "system:serviceaccount:ns:sa:" },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.driver, r.keys = requesting(audience), []m{server.public()}
			c := good()
			edit(c)
			value := server.sign(c, nil)
			r.want(audience, value, token.InSecrets, provider.Unproven)
			r.want(audience, value, token.InVolumeContext, provider.Unproven)
			if len(r.counts) != 0 {
				t.Errorf("a token that is not the pod's made requests: %v", r.counts)
			}
		})
	}
}

func TestRequestsThatDoNotSayWhoAsks(t *testing.T) {
	for name, edit := range map[string]func(p *provider.Pod){
		"no uid":             func(p *provider.Pod) { p.UID = "" },
		"no namespace":       func(p *provider.Pod) { p.Namespace = "" },
		"no service account": func(p *provider.Pod) { p.ServiceAccount = "" },
	} {
		p := pod
		edit(&p)
		c := good()
		c["sub"] = "system:serviceaccount:" + p.Namespace + ":" + p.ServiceAccount
		c["kubernetes.io"].(map[string]any)["pod"].(map[string]any)["uid"] = p.UID
		r := newRig(t)
		got, err := r.Prove(t.Context(), p, wire(audience, server.sign(c, nil)), token.InSecrets)
		if err != nil || got[audience].Proof != provider.Unproven {
			t.Errorf("%s: %v, %v", name, got[audience].Proof, err)
		}
	}
}

func TestExpiryOfTheRequestCounts(t *testing.T) {
	r := newRig(t)
	value := server.sign(good(), nil)
	for stamp, want := range map[string]provider.Proof{
		`,"expirationTimestamp":"2027-01-15T07:59:59Z"`: provider.Unproven, // a second before the rig's clock
		`,"expirationTimestamp":"2027-01-15T08:00:01Z"`: provider.ProvenByRequest,
		`,"expirationTimestamp":null`:                   provider.ProvenByRequest,
		``:                                              provider.ProvenByRequest,
	} {
		got, err := r.Prove(t.Context(), pod, fmt.Sprintf(`{%q:{"token":%q%s}}`, audience, value, stamp), token.InSecrets)
		if err != nil || got[audience].Proof != want || got[audience].Expires.IsZero() {
			t.Errorf("%s: %v until %v, %v; want %v", stamp, got[audience].Proof, got[audience].Expires, err, want)
		}
	}
}

func TestTheCSIDriverProves(t *testing.T) {
	r := newRig(t)
	r.driver = requesting("other", audience)
	value := server.sign(good(), nil)
	r.want(audience, value, token.InVolumeContext, provider.ProvenByCSIDriver)
	if n := r.count("watch"); n != 0 {
		t.Errorf("%d watches before Run", n)
	}
	r.run()
	await(t, "it is watched", func() bool { return r.Watched() })
	for i := range 100 { // new tokens, as kubelet makes them
		c := good()
		c["jti"] = i
		r.want(audience, server.sign(c, nil), token.InVolumeContext, provider.ProvenByCSIDriver)
	}
	if g, w, j := r.count("get"), r.count("watch"), r.count("jwks"); g != 1 || w != 1 || j != 0 {
		t.Errorf("101 tokens took %d reads and %d watches of the CSIDriver and %d reads of keys; want 1, 1, 0", g, w, j)
	}
	r.want("another", server.sign(with(good(), "aud", "another"), nil), token.InVolumeContext, provider.Unproven)

	// It is proven that kubelet made the old token; for a new one that cannot be said any more.
	r.set(func() { r.driver = requesting("other") })
	unproven := func() bool {
		c := good()
		c["jti"] = fmt.Sprint(time.Now())
		return r.prove(audience, server.sign(c, nil), token.InVolumeContext).Proof == provider.Unproven
	}
	await(t, "the change arrives", unproven)
	r.want(audience, value, token.InVolumeContext, provider.ProvenByCSIDriver)
	r.set(func() { r.driver = requesting(audience) })
	await(t, "the change arrives", func() bool { return !unproven() })
	r.set(func() { r.driver = nil })
	await(t, "the deletion arrives", unproven)
}

func with(c map[string]any, name string, value any) map[string]any {
	c = maps.Clone(c)
	c[name] = value
	return c
}

// Objects on which kubelet does not replace what an author wrote into the volume context.
func TestCSIDriversThatProveNothing(t *testing.T) {
	spec := func(spec any) map[string]any { return with(requesting(), "spec", spec) }
	requests := []any{map[string]any{"audience": audience}}
	for name, driver := range map[string]map[string]any{
		"none":                      nil,
		"no requests":               requesting(),
		"another audience":          requesting("other"),
		"the API server's audience": requesting(""),
		"tokens in secrets":         spec(map[string]any{"tokenRequests": requests, "serviceAccountTokenInSecrets": true}),
		"requests of another form":  spec(map[string]any{"tokenRequests": audience}),
		"a request of another form": spec(map[string]any{"tokenRequests": []any{audience, map[string]any{"audience": 1}}}),
		"no spec":                   spec(nil),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.driver = driver
			r.want(audience, server.sign(good(), nil), token.InVolumeContext, provider.Unproven)
			r.run()
			await(t, "it is watched", r.Watched)
			r.want(audience, server.sign(good(), nil), token.InVolumeContext, provider.Unproven)
		})
	}
	r := newRig(t)
	r.driver = spec(map[string]any{"tokenRequests": requests, "serviceAccountTokenInSecrets": false})
	r.want(audience, server.sign(good(), nil), token.InVolumeContext, provider.ProvenByCSIDriver)
}

// "" is the API server's own audience, whatever it is called.
func TestTheAPIServersOwnAudience(t *testing.T) {
	r := newRig(t)
	r.keys = []map[string]any{server.public()}
	own, foreign := server.sign(with(good(), "aud", []any{issuer}), nil), server.sign(good(), nil)
	r.want("", own, token.InSecrets, provider.ProvenByRequest)
	r.want("", foreign, token.InSecrets, provider.ProvenByRequest) // it may be called so
	r.want("", own, token.InVolumeContext, provider.ProvenBySignature)
	r.want("", foreign, token.InVolumeContext, provider.Unproven)
	r.want("", server.sign(with(good(), "aud", []any{}), nil), token.InSecrets, provider.Unproven)
	r = newRig(t)
	for _, driver := range []map[string]any{requesting(""), with(requesting(), "spec", map[string]any{"tokenRequests": []any{map[string]any{}}})} {
		r.driver = driver
		r.seconds.Add(10)
		r.want("", server.sign(with(good(), "jti", r.seconds.Load()), nil), token.InVolumeContext, provider.ProvenByCSIDriver)
	}
}

func TestWithoutTheRightForTheCSIDriver(t *testing.T) {
	for _, code := range []int{403, 503} {
		r := newRig(t)
		r.refuse = map[string]int{"get": code, "watch": code, "list": code}
		r.driver, r.keys = requesting(audience), []map[string]any{server.public()}
		r.run()
		for i := range 5 {
			r.want(audience, server.sign(with(good(), "jti", i), nil), token.InVolumeContext, provider.ProvenBySignature)
		}
		if n := r.count("get"); n != 1 {
			t.Errorf("%d: five tokens took %d reads of the CSIDriver, want 1", code, n)
		}
		r.seconds.Add(10)
		r.want(audience, server.sign(with(good(), "jti", 5), nil), token.InVolumeContext, provider.ProvenBySignature)
		if n := strings.Count(r.logs.String(), "CSIDriver object cannot be read"); r.count("get") != 2 || n != 1 {
			t.Errorf("%d: %d reads and %d lines", code, r.count("get"), n)
		}
		r.set(func() { clear(r.refuse) })
		await(t, "it is watched", r.Watched)
		r.want(audience, server.sign(with(good(), "jti", 6), nil), token.InVolumeContext, provider.ProvenByCSIDriver)
		if n := strings.Count(r.logs.String(), "can be read again"); n != 1 {
			t.Errorf("%d: the end was said %d times", code, n)
		}
	}
}

// What the watch told before it broke is not relied on: an author could write what kubelet no longer replaces.
func TestABrokenWatchProvesNothing(t *testing.T) {
	r := newRig(t)
	r.driver = requesting(audience)
	r.run()
	r.want(audience, server.sign(good(), nil), token.InVolumeContext, provider.ProvenByCSIDriver)
	await(t, "it is watched", r.Watched)
	r.set(func() { r.refuse = map[string]int{"get": 503, "watch": 503, "list": 503} })
	await(t, "the break is noticed", func() bool { return !r.Watched() })
	r.want(audience, server.sign(with(good(), "jti", 1), nil), token.InVolumeContext, provider.Unproven)
}

func TestNoKeysNoProof(t *testing.T) {
	r := newRig(t)
	r.refuse = map[string]int{"jwks": 403}
	for i := range 5 {
		r.want(audience, server.sign(with(good(), "jti", i), nil), token.InVolumeContext, provider.Unproven)
	}
	if n, lines := r.count("jwks"), strings.Count(r.logs.String(), "system:service-account-issuer-discovery"); n != 1 || lines != 1 {
		t.Errorf("five tokens took %d reads of the keys and %d log lines, want 1 and 1", n, lines)
	}
	r.set(func() { clear(r.refuse); r.keys = []map[string]any{server.public()} })
	r.seconds.Add(60)
	r.want(audience, server.sign(good(), nil), token.InVolumeContext, provider.ProvenBySignature)
	if n := strings.Count(r.logs.String(), "can be read again"); n != 1 {
		t.Errorf("that it works again was said %d times", n)
	}
}

func TestManyAtOnceAreOneRead(t *testing.T) {
	r := newRig(t)
	r.keys, r.hold = []map[string]any{server.public()}, make(chan struct{})
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			r.want(audience, server.sign(with(good(), "jti", i), nil), token.InVolumeContext, provider.ProvenBySignature)
		})
	}
	await(t, "the read is on its way", func() bool { return r.count("get") == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // who leaves gets no proof, and takes none from the others
	if got, err := r.Prove(ctx, pod, wire(audience, server.sign(good(), nil)), token.InVolumeContext); err != nil || got[audience].Proof != provider.Unproven {
		t.Errorf("%v, %v", got[audience].Proof, err)
	}
	close(r.hold)
	all.Wait()
	if g, j := r.count("get"), r.count("jwks"); g != 1 || j != 1 {
		t.Errorf("%d reads of the CSIDriver and %d of the keys, want 1 and 1", g, j)
	}
}

func TestVerdictsAreBounded(t *testing.T) {
	r := newRig(t)
	r.driver = requesting(audience)
	for i := range token.MaxProven + 50 {
		r.want(audience, "e30."+encode(with(good(), "jti", i))+".", token.InVolumeContext, provider.Unproven)
		r.want(audience, encode(map[string]any{"alg": "none"})+"."+encode(with(good(), "jti", i))+".", token.InVolumeContext, provider.ProvenByCSIDriver)
		r.seconds.Store(0)
	}
	if n := r.Verdicts(); n != token.MaxProven {
		t.Errorf("%d verdicts are kept, want %d", n, token.MaxProven)
	}
	r.seconds.Store(3600)
	r.want(audience, server.sign(with(good(), "exp", epoch+7200), nil), token.InSecrets, provider.Unproven) // the request says otherwise
	got, err := r.Prove(t.Context(), pod, fmt.Sprintf(`{%q:{"token":%q}}`, audience, server.sign(with(good(), "exp", epoch+7200), nil)), token.InVolumeContext)
	if err != nil || got[audience].Proof != provider.ProvenByCSIDriver || r.Verdicts() != 1 {
		t.Errorf("%v, %v, %d verdicts are kept when all others have expired", got[audience].Proof, err, r.Verdicts())
	}
}

func TestTextsOfAnotherForm(t *testing.T) {
	const secret = "s3cr3t"
	many := make([]string, 100)
	for i := range many {
		many[i] = fmt.Sprintf(`"a%d":{"token":"x"}`, i)
	}
	for name, text := range map[string]string{
		"not JSON":              secret,
		"cut off":               `{"aud":{"token":"` + secret,
		"a list":                `["` + secret + `"]`,
		"a string":              `"` + secret + `"`,
		"null":                  `null`,
		"a number":              `1`,
		"blanks":                `  `,
		"two values":            `{} {"aud":{"token":"` + secret + `"}}`,
		"something behind":      `{"aud":{"token":"x"}}` + secret,
		"an audience twice":     `{"aud":{"token":"x"},"aud":{"token":"` + secret + `"}}`,
		"twice by an escape":    `{"aud":{"token":"x"},"\u0061ud":{"token":"` + secret + `"}}`,
		"a token twice":         `{"aud":{"token":"x","token":"` + secret + `"}}`,
		"audience is a token":   `{"aud":"` + secret + `"}`,
		"audience is null":      `{"aud":null}`,
		"audience is a list":    `{"aud":[{"token":"x"}]}`,
		"token is a number":     `{"aud":{"token":1}}`,
		"token is an object":    `{"aud":{"token":{"token":"` + secret + `"}}}`,
		"expiry is a number":    `{"aud":{"token":"` + secret + `","expirationTimestamp":1}}`,
		"expiry is no date":     `{"aud":{"token":"` + secret + `","expirationTimestamp":"` + secret + `"}}`,
		"a string of JSON":      `"{\"aud\":{\"token\":\"x\"}}"`,
		"nested deep":           strings.Repeat(`{"aud":`, 20_000) + strings.Repeat(`}`, 20_000),
		"nested lists":          `{"aud":` + strings.Repeat(`[`, 20_000) + strings.Repeat(`]`, 20_000) + `}`,
		"huge":                  `{"aud":{"token":"` + strings.Repeat("x", 1<<20) + `"}}`,
		"huge audience":         `{"` + strings.Repeat("x", 1<<20) + `":{"token":"x"}}`,
		"too many audiences":    `{` + strings.Join(many, ",") + `}`,
		"byte order mark":       "\ufeff{}",
		"NUL":                   "{}\x00",
		"Python's":              `{'aud':{'token':'` + secret + `'}}`,
		"a comma too many":      `{"aud":{"token":"x"},}`,
		"a member without name": `{:{"token":"x"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			for _, from := range []token.Origin{token.InSecrets, token.InVolumeContext} {
				got, err := r.Prove(t.Context(), pod, text, from)
				var e *provider.Error
				if !errors.As(err, &e) || e.Kind != provider.Invalid || got != nil {
					t.Fatalf("got %d tokens, %v", len(got), err)
				}
				if strings.Contains(err.Error(), secret) || len(err.Error()) > 300 {
					t.Errorf("the error repeats the text: %.300s", err)
				}
			}
		})
	}
}

func TestTextsThatHoldNoProof(t *testing.T) {
	r := newRig(t)
	for text, want := range map[string]int{
		"":                            0,
		"{}":                          0,
		" {} \n":                      0,
		`{"aud":{}}`:                  0,
		`{"aud":{"token":""}}`:        0,
		`{"aud":{"token":null}}`:      0,
		`{"aud":{"Token":"x"}}`:       0, // names are exact
		`{"aud":{"token":"x"}}`:       1,
		`{"aud":{"token":"x","n":1}}`: 1, // what kubelet may write one day
		`{"a":{"token":"x"},"b":{"token":"y","expirationTimestamp":null}}`: 2,
		`{"aud":{"token":"` + strings.Repeat("x.", 60_000) + `"}}`:         1,
		`{"\ud800":{"token":"x"}}`:                                         1,
	} {
		got, err := r.Prove(t.Context(), pod, text, token.InSecrets)
		if err != nil || len(got) != want {
			t.Errorf("%.60q: %d tokens, %v; want %d", text, len(got), err, want)
		}
		for _, token := range got {
			if token.Proof != provider.Unproven {
				t.Errorf("%.60q is proven", text)
			}
		}
	}
}
