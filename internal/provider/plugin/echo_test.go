package plugin_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
)

// echoRequest has one credential of each kind; the last result are texts that must never come back.
func echoRequest() (*provider.Request, []string) {
	const token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJwb2QifQ.c2lnbmF0dXJlLW9mLXRoZS1wb2Q"
	req := request()
	req.Secrets = map[string]provider.Sensitive{
		"clientid":     "11111111-2222-3333-4444-555555555555",
		"clientsecret": "a \"quoted\" <pass\\word",
		"key":          "-----BEGIN PRIVATE KEY-----\r\nTUlJRXZRSUJBREFOQmdr\nU2Vjb25kTGluZU9mS2V5\n-----END PRIVATE KEY-----\n",
		"short":        "mount",
	}
	req.Tokens = map[string]provider.Token{"aud": {Value: token}}
	return req, append(strings.Split(token, "."), `"quoted" <pass\word`, `\"quoted\" <pass`, `\"quoted\" \u003cpass`, `\u003cpass`, "TUlJRXZRSUJBREFOQmdr", "U2Vjb25kTGluZU9mS2V5")
}

// A provider that prints what it was asked must not carry the pod's credentials into logs, Events and conditions.
func TestErrorsDoNotRepeatCredentials(t *testing.T) {
	req, never := echoRequest()
	var asked *v1alpha1.MountRequest
	key := req.Secrets["key"].Reveal()
	for name, answer := range map[string]func() (*v1alpha1.MountResponse, error){
		"the request":         func() (*v1alpha1.MountResponse, error) { return nil, fmt.Errorf("cannot mount %v", asked) },
		"its secrets":         func() (*v1alpha1.MountResponse, error) { return nil, errors.New("cannot mount " + asked.GetSecrets()) },
		"a key, quoted":       func() (*v1alpha1.MountResponse, error) { return nil, fmt.Errorf("cannot mount %q", key) },
		"its secrets, quoted": func() (*v1alpha1.MountResponse, error) { return nil, fmt.Errorf("cannot mount %q", asked.GetSecrets()) },
		"its secrets, quoted twice": func() (*v1alpha1.MountResponse, error) {
			return nil, fmt.Errorf("cannot mount %q", fmt.Sprintf("%q", asked.GetSecrets()))
		},
		"raw": func() (*v1alpha1.MountResponse, error) {
			return nil, errors.New("cannot mount " + key + req.Secrets["clientsecret"].Reveal())
		},
		"a token": func() (*v1alpha1.MountResponse, error) {
			return nil, status.Error(codes.PermissionDenied, "cannot mount "+asked.GetAttributes())
		},
		"behind what is cut": func() (*v1alpha1.MountResponse, error) {
			return nil, errors.New("cannot mount " + strings.Repeat("x", 2000) + never[0] + "." + never[1] + "." + never[2] + strings.Repeat("x", 2000))
		},
		"details": func() (*v1alpha1.MountResponse, error) {
			st, err := status.New(codes.Internal, "text").WithDetails(&errdetails.ErrorInfo{Domain: "keymount.dev", Reason: "denied", Metadata: map[string]string{
				"object": "secret/" + never[2], "message": "cannot mount " + asked.GetAttributes(), "remedy": key}})
			return nil, errors.Join(err, st.Err())
		},
		"code": func() (*v1alpha1.MountResponse, error) {
			return &v1alpha1.MountResponse{Error: &v1alpha1.Error{Code: "cannot mount " + never[2]}}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			socket := socketPath(t)
			serveForeign(t, socket, func(_ context.Context, in *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
				asked = in
				return answer()
			})
			_, err := client(t, socket).Fetch(deadline(t), req)
			if err == nil {
				t.Fatal("no error")
			}
			all := err.Error()
			for _, e := range provider.ErrorsOf(err) {
				all += "\n" + e.Object + e.Message + e.Remedy
			}
			var code *plugin.CodeError
			if errors.As(err, &code) {
				all += "\n" + code.ErrorType()
			}
			for _, text := range never {
				if strings.Contains(all, text) {
					t.Errorf("%q is in %s", text, strconv.Quote(all))
				}
			}
			if !strings.Contains(all, "cannot mount") {
				t.Errorf("what the provider meant is gone: %s", all)
			}
		})
	}
}

// What is public, and what is too short to be anybody's credential, stays: messages are of no use without it.
func TestErrorsKeepWhatIsNoCredential(t *testing.T) {
	req, _ := echoRequest()
	const text = "cannot mount: application 11111111-2222-3333-4444-555555555555 has no access to vault v"
	socket := socketPath(t)
	serveForeign(t, socket, func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		return nil, status.Error(codes.NotFound, text)
	})
	_, err := client(t, socket).Fetch(deadline(t), req)
	if err == nil || err.Error() != text || provider.KindOf(err) != provider.Internal {
		t.Errorf("%v, of kind %v", err, provider.KindOf(err))
	}
}

// Whoever writes a Secret decides how long the search takes and what memory it needs, up to a bound: beyond it, the
// provider's words are lost, and no secret is told.
func TestErrorsOfRequestsWithHugeCredentials(t *testing.T) {
	var lines strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&lines, "%08d\n", i)
	}
	for name, secret := range map[string]string{
		"one that grows with each quoting": strings.Repeat(`"\<`, 300<<10),
		"very many short lines":            lines.String(),
	} {
		t.Run(name, func(t *testing.T) {
			req := request()
			req.Secrets = map[string]provider.Sensitive{"password": provider.Sensitive(secret)}
			socket := socketPath(t)
			serveForeign(t, socket, func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
				return nil, status.Error(codes.Internal, "cannot mount "+secret[:1000])
			})
			_, err := client(t, socket).Fetch(deadline(t), req)
			if err == nil || strings.Contains(err.Error(), secret[:8]) || !strings.Contains(err.Error(), "too large to be looked for") {
				t.Errorf("%.300s", err)
			}
		})
	}
}
