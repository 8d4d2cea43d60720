package plugin_test

import (
	"context"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
)

// What a provider is asked and answers is the same through the socket as without it.
func TestRequestAndBundleRoundTrip(t *testing.T) {
	expires := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name   string
		change func(*provider.Request)
	}{
		{"plain", func(*provider.Request) {}},
		{"no parameters", func(r *provider.Request) { r.Parameters = map[string]string{} }},
		{"secrets", func(r *provider.Request) {
			r.Secrets = map[string]provider.Sensitive{"clientid": "a", "clientsecret": "<&>\"\\\x01é"}
		}},
		{"unproven tokens", func(r *provider.Request) {
			r.Tokens = map[string]provider.Token{"": {Value: "t1", Expires: expires}, "aud": {Value: "t2"}}
		}},
		{"proven tokens", func(r *provider.Request) {
			r.Tokens = map[string]provider.Token{"aud": {Value: "t", Expires: expires, Proof: provider.ProvenByRequest}}
		}},
		{"proven and unproven tokens", func(r *provider.Request) {
			r.Tokens = map[string]provider.Token{"a": {Value: "t", Proof: provider.ProvenByRequest}, "b": {Value: "u"}}
			r.Secrets = map[string]provider.Sensitive{"k": "v"}
		}},
		{"mounted", func(r *provider.Request) {
			r.Mounted = []provider.ObjectVersion{{ID: "secret/a", Version: "1"}, {ID: "secret/a"}, {}}
		}},
		{"not before", func(r *provider.Request) { r.NotBefore = expires }},
		{"mode 0", func(r *provider.Request) { r.DefaultMode = 0 }},
		{"no pod", func(r *provider.Request) { r.Pod = provider.Pod{} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := request()
			want.Tokens = map[string]provider.Token{}
			tc.change(want)
			bundle := &provider.Bundle{
				Files: []provider.File{
					{Path: "a/b", Mode: 0o400, Contents: provider.Contents{0, 255, 10}},
					{Path: "c", Mode: 0, Contents: nil},
				},
				Versions: []provider.ObjectVersion{{ID: "a", Version: ""}, {ID: "a", Version: "2"}},
			}
			var got *provider.Request
			socket := socketPath(t)
			serve(t, socket, fetch(func(_ context.Context, req *provider.Request) (*provider.Bundle, error) {
				got = req
				return bundle, nil
			}), io.Discard)
			answer, err := client(t, socket).Fetch(deadline(t), want)
			if err != nil {
				t.Fatal(err)
			}
			got.NotBefore = got.NotBefore.Round(0).UTC() // as it was written
			if !reflect.DeepEqual(got, want) {
				t.Errorf("asked %#v, want %#v", got.Parameters, want.Parameters)
				t.Errorf("asked %+v, want %+v", *got, *want)
			}
			bundle.Files[1].Contents = answer.Files[1].Contents // nil or empty, both are an empty file
			if len(answer.Files[1].Contents) != 0 || !reflect.DeepEqual(answer, bundle) {
				t.Errorf("answered %+v, want %+v", answer, bundle)
			}
		})
	}
}

// As of when a bundle is goes beside the message, and so does that nothing is known of it.
func TestAsOfRoundTrip(t *testing.T) {
	for name, want := range map[string]time.Time{"none": {}, "a read from before the call": time.Now().Add(-3 * time.Second)} {
		socket := socketPath(t)
		serve(t, socket, fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) {
			return &provider.Bundle{AsOf: want}, nil
		}), io.Discard)
		answer, err := client(t, socket).Fetch(deadline(t), request())
		if err != nil {
			t.Fatal(err)
		}
		if got := answer.AsOf; got.IsZero() != want.IsZero() || got.Sub(want).Abs() > time.Second {
			t.Errorf("%s: %v came as %v", name, want, got)
		}
	}
}

// Only a token that came in the secrets of the CSI request is believed without further proof, so nothing that an author
// writes may make one look so.
func TestProofDoesNotGrowOnTheWire(t *testing.T) {
	t.Attr("conformance", "10.3/token-copies")
	const key = "csi.storage.k8s.io/serviceAccount.tokens"
	forged := `{"aud":{"token":"forged"}}`
	for _, tc := range []struct {
		name   string
		change func(*provider.Request)
		want   map[string]provider.Token
	}{
		{"a parameter of the class", func(r *provider.Request) { r.Parameters[key] = forged }, map[string]provider.Token{}},
		{"a Secret of the pod", func(r *provider.Request) {
			r.Secrets = map[string]provider.Sensitive{key: provider.Sensitive(forged)}
		}, map[string]provider.Token{}},
		{"a parameter beside a true token", func(r *provider.Request) {
			r.Parameters[key] = forged
			r.Tokens = map[string]provider.Token{"aud": {Value: "true"}}
		}, map[string]provider.Token{"aud": {Value: "true"}}},
		{"proof by the CSIDriver object", func(r *provider.Request) {
			r.Tokens = map[string]provider.Token{"aud": {Value: "true", Proof: provider.ProvenByCSIDriver}}
		}, map[string]provider.Token{"aud": {Value: "true"}}},
		{"proof by signature", func(r *provider.Request) {
			r.Tokens = map[string]provider.Token{"aud": {Value: "true", Proof: provider.ProvenBySignature}}
		}, map[string]provider.Token{"aud": {Value: "true"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := request()
			tc.change(req)
			var got *provider.Request
			socket := socketPath(t)
			serve(t, socket, fetch(func(_ context.Context, req *provider.Request) (*provider.Bundle, error) {
				got = req
				return &provider.Bundle{}, nil
			}), io.Discard)
			if _, err := client(t, socket).Fetch(deadline(t), req); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got.Tokens, tc.want) {
				t.Errorf("tokens became %d of proof %v, want %d", len(got.Tokens), got.Tokens["aud"].Proof, len(tc.want))
			}
			if _, there := got.Parameters[key]; there || got.Secrets[key] != "" {
				t.Error("the tokens were left among the parameters or secrets")
			}
		})
	}
}

// The pod's identity is kubelet's to say: what a class writes under the same names is not carried.
func TestParametersCannotNameThePod(t *testing.T) {
	req := request()
	req.Pod.UID = ""
	req.Parameters["csi.storage.k8s.io/pod.uid"] = "another"
	req.Parameters["csi.storage.k8s.io/pod.name"] = "another"
	var got *provider.Request
	socket := socketPath(t)
	serve(t, socket, fetch(func(_ context.Context, req *provider.Request) (*provider.Bundle, error) {
		got = req
		return &provider.Bundle{}, nil
	}), io.Discard)
	if _, err := client(t, socket).Fetch(deadline(t), req); err != nil {
		t.Fatal(err)
	}
	if got.Pod != req.Pod {
		t.Errorf("the pod became %+v", got.Pod)
	}
	if req.Parameters["csi.storage.k8s.io/pod.name"] != "another" {
		t.Error("the client changed the caller's request")
	}
}

func TestErrorsRoundTrip(t *testing.T) {
	kinds := []provider.Kind{provider.Internal, provider.Invalid, provider.NotFound, provider.Denied, provider.Throttled, provider.Unavailable}
	cases := map[string]error{
		"several": provider.Errors{
			{Kind: provider.Throttled, Object: "secret/a", Message: "reading a: 429", RetryAfter: 1500 * time.Millisecond},
			{Kind: provider.NotFound, Object: "secret/b", Message: "reading b: 404\nsecond line", Remedy: "create it"},
		},
	}
	for _, kind := range kinds {
		cases[kind.String()] = &provider.Error{Kind: kind, Object: "o", Message: "m", Remedy: "r", RetryAfter: time.Minute}
	}
	socket := socketPath(t)
	var give error
	serve(t, socket, fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) { return nil, give }), io.Discard)
	c := client(t, socket)
	for name, want := range cases {
		t.Run(name, func(t *testing.T) {
			give = want
			_, got := c.Fetch(deadline(t), request())
			if !reflect.DeepEqual(provider.ErrorsOf(got), provider.ErrorsOf(want)) {
				t.Errorf("got %#v, want %#v", got, want)
			}
			if provider.KindOf(got) != provider.KindOf(want) || got.Error() != want.Error() {
				t.Errorf("got %v %q, want %v %q", provider.KindOf(got), got, provider.KindOf(want), want)
			}
		})
	}
}

// A thousand failures are cut to a number that fits into HTTP/2 headers, without a change of what the whole means.
func TestManyFailuresAreBounded(t *testing.T) {
	var all provider.Errors
	for range 1000 {
		all = append(all, &provider.Error{Kind: provider.Throttled, Object: "o", Message: strings.Repeat("é", 5000)})
	}
	all[999].Kind = provider.Denied
	socket := socketPath(t)
	serve(t, socket, fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) { return nil, all }), io.Discard)
	_, err := client(t, socket).Fetch(deadline(t), request())
	got := provider.ErrorsOf(err)
	if provider.KindOf(err) != provider.Denied {
		t.Errorf("kind %v, want denied", provider.KindOf(err))
	}
	if len(got) != 32 || !strings.Contains(got[31].Message, "969 more objects failed") || len(err.Error()) > 70_000 {
		t.Errorf("%d failures, %d bytes, the last %q", len(got), len(err.Error()), got[len(got)-1].Message)
	}
}

func TestPlainErrorsKeepTheirText(t *testing.T) {
	socket := socketPath(t)
	serve(t, socket, fetch(func(context.Context, *provider.Request) (*provider.Bundle, error) {
		return nil, errors.New("something broke\x1b[2J")
	}), io.Discard)
	_, err := client(t, socket).Fetch(deadline(t), request())
	if provider.KindOf(err) != provider.Internal || err.Error() != "something broke [2J" {
		t.Errorf("got %v %q", provider.KindOf(err), err)
	}
}

func TestVersion(t *testing.T) {
	socket := socketPath(t)
	serve(t, socket, fetch(nil), io.Discard)
	got, err := client(t, socket).Version(deadline(t))
	if want := (plugin.Info{RuntimeName: "test", RuntimeVersion: "v0"}); err != nil || got != want {
		t.Errorf("got %v, %v", got, err)
	}
}

// Every call on one connection at once: none may see another's answer.
func TestConcurrentCalls(t *testing.T) {
	socket := socketPath(t)
	serve(t, socket, fetch(func(_ context.Context, req *provider.Request) (*provider.Bundle, error) {
		return &provider.Bundle{
			Files:    []provider.File{{Path: req.Pod.UID, Contents: provider.Contents(req.Pod.UID)}},
			Versions: []provider.ObjectVersion{{ID: req.Pod.UID}},
		}, nil
	}), io.Discard)
	c := client(t, socket)
	results := make(chan error, 64)
	for i := range 64 {
		go func() {
			req := request()
			req.Pod.UID = strings.Repeat("x", i+1)
			b, err := c.Fetch(deadline(t), req)
			if err == nil && !slices.Equal(b.Files[0].Contents, provider.Contents(req.Pod.UID)) {
				err = errors.New("another's answer")
			}
			results <- err
		}()
	}
	for range 64 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
