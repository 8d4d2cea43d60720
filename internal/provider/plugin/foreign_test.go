package plugin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
)

// What goes over the wire is what third-party providers parse: the AWS, GCP, Vault and Azure providers each need some of it.
func TestWhatAProviderIsAsked(t *testing.T) {
	t.Attr("conformance", "12.4/authority")
	t.Attr("conformance", "12.4/attributes")
	t.Attr("conformance", "12.4/tokens")
	t.Attr("conformance", "12.4/secrets")
	t.Attr("conformance", "12.4/permission")
	t.Attr("conformance", "12.4/target-path")
	const tokens = "csi.storage.k8s.io/serviceAccount.tokens"
	expires := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	token := `{"aud":{"token":"t","expirationTimestamp":"2026-11-23T10:00:00Z"}}`
	base := map[string]string{
		"keyvaultName": "v", "csi.storage.k8s.io/ephemeral": "true",
		"csi.storage.k8s.io/pod.name": "pod", "csi.storage.k8s.io/pod.namespace": "ns",
		"csi.storage.k8s.io/pod.uid": "uid", "csi.storage.k8s.io/serviceAccount.name": "sa",
	}
	with := func(key, value string) map[string]string {
		out := map[string]string{key: value}
		for k, v := range base {
			out[k] = v
		}
		return out
	}
	for _, tc := range []struct {
		name       string
		change     func(*provider.Request)
		attributes map[string]string
		secrets    string
		permission string
	}{
		{"plain", func(*provider.Request) {}, base, "null", "420"},
		{"an empty Secret", func(r *provider.Request) { r.Secrets = map[string]provider.Sensitive{} }, base, "null", "420"},
		{"a Secret", func(r *provider.Request) { r.Secrets = map[string]provider.Sensitive{"b": "2", "a": "1"} },
			base, `{"a":"1","b":"2"}`, "420"},
		{"mode 0600", func(r *provider.Request) { r.DefaultMode = 0o600 }, base, "null", "384"},
		{"tokens from the volume context", func(r *provider.Request) {
			r.Tokens = map[string]provider.Token{"aud": {Value: "t", Expires: expires}}
		}, with(tokens, token), "null", "420"},
		{"tokens from the secrets of the request", func(r *provider.Request) {
			r.Tokens = map[string]provider.Token{"aud": {Value: "t", Expires: expires, Proof: provider.ProvenByRequest}}
		}, with(tokens, token), fmt.Sprintf(`{%q:%q}`, tokens, token), "420"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got *v1alpha1.MountRequest
			var authority []string
			socket := socketPath(t)
			serveForeign(t, socket, func(ctx context.Context, in *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
				got = in
				md, _ := metadata.FromIncomingContext(ctx)
				authority = md.Get(":authority")
				return &v1alpha1.MountResponse{}, nil
			})
			req := request()
			tc.change(req)
			if _, err := client(t, socket).Fetch(deadline(t), req); err != nil {
				t.Fatal(err)
			}
			var attributes map[string]string
			if err := json.Unmarshal([]byte(got.Attributes), &attributes); err != nil || !reflect.DeepEqual(attributes, tc.attributes) {
				t.Errorf("attributes %s (%v)", got.Attributes, err)
			}
			if got.Secrets != tc.secrets || got.Permission != tc.permission || got.TargetPath != "/target" {
				t.Errorf("secrets %s, permission %s, target %s", got.Secrets, got.Permission, got.TargetPath)
			}
			if !reflect.DeepEqual(authority, []string{"localhost"}) {
				t.Errorf("authority %q", authority)
			}
		})
	}
}

// A row is a good answer plus one change, and what the client makes of it.
func TestAnswers(t *testing.T) {
	t.Attr("conformance", "12.4/mode-0")
	t.Attr("conformance", "12.4/empty-version")
	t.Attr("conformance", "12.4/duplicate-ids")
	t.Attr("conformance", "12.4/empty-files")
	t.Attr("conformance", "12.4/error-code")
	t.Attr("conformance", "12.4/too-large")
	setuid := int32(1<<23 | 0o755) // what fs.FileMode reads as set-uid
	for _, tc := range []struct {
		name   string
		change func(*v1alpha1.MountResponse)
		check  func(*provider.Bundle) bool
		want   string // part of the error
	}{
		{"good", func(*v1alpha1.MountResponse) {}, func(b *provider.Bundle) bool {
			return len(b.Files) == 1 && !b.SelfWritten && string(b.Files[0].Contents) == "c"
		}, ""},
		{"it writes files itself", func(r *v1alpha1.MountResponse) { r.Files = nil },
			func(b *provider.Bundle) bool { return b.SelfWritten && len(b.Versions) == 1 }, ""},
		{"no objects", func(r *v1alpha1.MountResponse) { r.Files, r.ObjectVersion = nil, nil },
			func(b *provider.Bundle) bool { return !b.SelfWritten && len(b.Versions) == 0 }, ""},
		{"files without versions", func(r *v1alpha1.MountResponse) { r.ObjectVersion = nil }, nil, "missing object versions"},
		{"a version without text", func(r *v1alpha1.MountResponse) { r.ObjectVersion[0].Version = "" },
			func(b *provider.Bundle) bool { return b.Versions[0] == provider.ObjectVersion{ID: "o"} }, ""},
		{"an id twice", func(r *v1alpha1.MountResponse) { r.ObjectVersion = append(r.ObjectVersion, r.ObjectVersion[0]) },
			func(b *provider.Bundle) bool { return len(b.Versions) == 2 }, ""},
		{"an empty file", func(r *v1alpha1.MountResponse) { r.Files[0].Contents = nil },
			func(b *provider.Bundle) bool { return len(b.Files) == 1 && len(b.Files[0].Contents) == 0 }, ""},
		{"an error code", func(r *v1alpha1.MountResponse) { r.Error = &v1alpha1.Error{Code: "E42\x1b"} }, nil,
			"mount request failed with provider error code E42 "},
		{"an error without code", func(r *v1alpha1.MountResponse) { r.Error = &v1alpha1.Error{} },
			func(b *provider.Bundle) bool { return len(b.Files) == 1 }, ""},
		{"mode 0", func(r *v1alpha1.MountResponse) { r.Files[0].Mode = 0 },
			func(b *provider.Bundle) bool { return b.Files[0].Mode == 0 && len(b.Warnings) == 0 }, ""},
		{"mode 07777", func(r *v1alpha1.MountResponse) { r.Files[0].Mode = 0o7777 },
			func(b *provider.Bundle) bool { return b.Files[0].Mode == 0o777 && len(b.Warnings) == 1 }, ""},
		{"mode of Go's set-uid bit", func(r *v1alpha1.MountResponse) { r.Files[0].Mode = setuid }, nil, "mode 8389101 is not from 0 to 511"},
		{"mode below 0", func(r *v1alpha1.MountResponse) { r.Files[0].Mode = -420 }, nil, "mode -420 is not from 0 to 511"},
		{"a path beyond bounds", func(r *v1alpha1.MountResponse) { r.Files[0].Path = strings.Repeat("a", 4097) }, nil, "more than 4096 bytes"},
		{"an id beyond bounds", func(r *v1alpha1.MountResponse) { r.ObjectVersion[0].Id = strings.Repeat("a", 4097) }, nil, "more than 4096 bytes"},
		{"files beyond bounds", func(r *v1alpha1.MountResponse) {
			r.Files = make([]*v1alpha1.File, 16385)
			for i := range r.Files {
				r.Files[i] = &v1alpha1.File{}
			}
		}, nil, "more than 16384"},
		{"an answer beyond bounds", func(r *v1alpha1.MountResponse) { r.Files[0].Contents = make([]byte, 4<<20) }, nil,
			"raise --max-call-recv-msg-size"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			socket := socketPath(t)
			serveForeign(t, socket, func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
				r := &v1alpha1.MountResponse{
					ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "o", Version: "1"}},
					Files:         []*v1alpha1.File{{Path: "f", Mode: 0o644, Contents: []byte("c")}},
				}
				tc.change(r)
				return r, nil
			})
			b, err := client(t, socket).Fetch(deadline(t), request())
			switch {
			case tc.want == "" && (err != nil || !tc.check(b)):
				t.Errorf("got %+v, %v", b, err)
			case tc.want != "" && (b != nil || err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestErrorCodeIsTheCause(t *testing.T) {
	socket := socketPath(t)
	serveForeign(t, socket, func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		return &v1alpha1.MountResponse{Error: &v1alpha1.Error{Code: "E42"}}, nil
	})
	_, err := client(t, socket).Fetch(deadline(t), request())
	var code *plugin.CodeError
	if !errors.As(err, &code) || code.Code != "E42" || provider.KindOf(err) != provider.Internal {
		t.Errorf("got %v of kind %v", err, provider.KindOf(err))
	}
}

func TestLargerAnswersByConfiguration(t *testing.T) {
	socket := socketPath(t)
	serveForeign(t, socket, func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		return &v1alpha1.MountResponse{
			ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "o"}},
			Files:         []*v1alpha1.File{{Path: "f", Contents: make([]byte, 5<<20)}},
		}, nil
	})
	c := clientOf(t, plugin.ClientConfig{Socket: socket, MaxMessageBytes: 8 << 20})
	if b, err := c.Fetch(deadline(t), request()); err != nil || len(b.Files[0].Contents) != 5<<20 {
		t.Errorf("got %v", err)
	}
}

// Other providers use codes as they please, and their texts go to Events and terminals.
func TestForeignErrors(t *testing.T) {
	t.Attr("conformance", "12.4/foreign-errors")
	withInfo := func(domain, reason string) error {
		st, err := status.New(codes.Unknown, "text").WithDetails(&errdetails.ErrorInfo{Domain: domain, Reason: reason,
			Metadata: map[string]string{"object": "o\x00", "retryAfter": "-5s"}})
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	for _, tc := range []struct {
		name string
		give error
		kind provider.Kind
		text string
	}{
		{"a plain error", errors.New("boom"), provider.Internal, "boom"},
		{"internal", status.Error(codes.Internal, "all-or-nothing"), provider.Internal, "all-or-nothing"},
		{"a code that means nothing here", status.Error(codes.PermissionDenied, "no"), provider.Internal, "no"},
		{"resource exhausted", status.Error(codes.ResourceExhausted, "slow down"), provider.Internal, "slow down"},
		{"unavailable", status.Error(codes.Unavailable, "later"), provider.Unavailable, "later"},
		{"its own deadline", context.DeadlineExceeded, provider.Unavailable, "context deadline exceeded"},
		{"no text", status.Error(codes.Aborted, " "), provider.Internal, "the provider answered with code Aborted and no text"},
		{"controls", status.Error(codes.Unknown, "a\x1b[31m\r\nb\u202e"), provider.Internal, "a [31m \nb "},
		{"endless", status.Error(codes.Unknown, strings.Repeat("é", 4000)), provider.Internal, strings.Repeat("é", 1022) + "..."},
		{"another's details", withInfo("googleapis.com", "denied"), provider.Internal, "text"},
		{"an unknown kind", withInfo("keymount.dev", "bizarre"), provider.Internal, "text"},
		{"our details", withInfo("keymount.dev", "denied"), provider.Denied, "text"},
		{"no such method", status.Error(codes.Unimplemented, "x"), provider.Internal, "does not speak the provider protocol"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			socket := socketPath(t)
			calls := 0
			serveForeign(t, socket, func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
				calls++
				return nil, tc.give
			})
			b, err := client(t, socket).Fetch(deadline(t), request())
			if b != nil || provider.KindOf(err) != tc.kind || (err.Error() != tc.text && !strings.Contains(err.Error(), "does not speak")) {
				t.Errorf("got %v %q, want %v %q", provider.KindOf(err), err, tc.kind, tc.text)
			}
			// A gRPC server that returned this error must not pass the provider's code on.
			if code := status.Code(err); code != codes.Unknown {
				t.Errorf("the error carries the code %v", code)
			}
			if calls != 1 {
				t.Errorf("the provider was called %d times", calls)
			}
		})
	}
}

func ask(t *testing.T, c *plugin.Client) (string, error) {
	t.Helper()
	b, err := c.Fetch(deadline(t), request())
	if err != nil {
		return "", err
	}
	return b.Versions[0].Version, nil
}

func answering(version string) func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	return func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		return &v1alpha1.MountResponse{ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "o", Version: version}}}, nil
	}
}

// A provider that is restarted, crashes or moves is found again without a restart of the driver.
func TestReconnect(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, socket string, kill func())
	}{
		{"restarted", func(t *testing.T, socket string, kill func()) {
			kill()
			os.Remove(socket)
			serveForeign(t, socket, answering("2"))
		}},
		{"replaced while the old one still serves", func(t *testing.T, socket string, _ func()) {
			other := filepath.Join(filepath.Dir(socket), "q.sock")
			serveForeign(t, other, answering("2"))
			if err := os.Rename(other, socket); err != nil {
				t.Fatal(err)
			}
		}},
		{"replaced by a link to another folder", func(t *testing.T, socket string, _ func()) {
			other := socketPath(t)
			serveForeign(t, other, answering("2"))
			os.Remove(socket)
			if err := os.Symlink(other, socket); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			socket := socketPath(t)
			kill := serveForeign(t, socket, answering("1"))
			c := client(t, socket)
			if got, err := ask(t, c); got != "1" {
				t.Fatalf("got %q, %v", got, err)
			}
			tc.change(t, socket, kill)
			if got, err := ask(t, c); got != "2" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// A call that is under way when its provider dies is made again at the next one, once.
func TestProviderDiesDuringTheCall(t *testing.T) {
	socket := socketPath(t)
	called := make(chan struct{})
	kill := serveForeign(t, socket, func(ctx context.Context, _ *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		close(called)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	c := clientOf(t, plugin.ClientConfig{Socket: socket, ConnectWithin: time.Minute})
	type answer struct {
		version string
		err     error
	}
	answers := make(chan answer, 1)
	go func() {
		v, err := ask(t, c)
		answers <- answer{v, err}
	}()
	<-called
	kill() // the call now waits for somebody to listen
	os.Remove(socket)
	serveForeign(t, socket, answering("2"))
	if got := <-answers; got.version != "2" {
		t.Errorf("got %q, %v", got.version, got.err)
	}
}

// Nobody there is said at once, naming the socket, and not after the two minutes that kubelet waits.
func TestNobodyListens(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(t *testing.T, socket string)
		want    string
	}{
		{"no socket", func(*testing.T, string) {}, "it does not exist"},
		{"a stale socket", func(t *testing.T, socket string) { serveForeign(t, socket, nil)() }, "nobody listens"},
		{"a file", func(t *testing.T, socket string) { os.WriteFile(socket, nil, 0o600) }, "it is no socket"},
		{"a folder", func(t *testing.T, socket string) { os.Mkdir(socket, 0o700) }, "it is no socket"},
		{"somebody silent", func(t *testing.T, socket string) {
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, "does not speak gRPC"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			socket := socketPath(t)
			tc.prepare(t, socket)
			c := clientOf(t, plugin.ClientConfig{Socket: socket, ConnectWithin: 100 * time.Millisecond})
			_, err := c.Fetch(t.Context(), request()) // without a deadline
			if provider.KindOf(err) != provider.Unavailable || !strings.Contains(err.Error(), socket) ||
				!strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v %v, want %q", provider.KindOf(err), err, tc.want)
			}
		})
	}
}

func TestClosedClient(t *testing.T) {
	socket := socketPath(t)
	serveForeign(t, socket, answering("1"))
	c := client(t, socket)
	if _, err := ask(t, c); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := ask(t, c); err == nil || !strings.Contains(err.Error(), "is closed") {
		t.Errorf("got %v", err)
	}
}

// The panic of another's provider, which ends its process, or a garbled answer is an error like any other.
func TestGarbledAnswer(t *testing.T) {
	socket := socketPath(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		return stream.SendMsg(&v1alpha1.VersionRequest{Version: string(bytes.Repeat([]byte{'x'}, 9))})
	}))
	go g.Serve(l)
	t.Cleanup(g.Stop)
	// The answer's field 1 is text where MountResponse has a message.
	b, err := client(t, socket).Fetch(deadline(t), request())
	if b != nil || provider.KindOf(err) != provider.Internal {
		t.Errorf("got %v %v", provider.KindOf(err), err)
	}
}
