package plugin

import (
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	spb "google.golang.org/genproto/googleapis/rpc/status"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider"
)

// FuzzWire gives both directions what the other side might send: a request's JSON, and the bytes of an answer and of a
// status. What is accepted keeps the contract, and survives the way back.
func FuzzWire(f *testing.F) {
	answer, err := proto.Marshal(&v1alpha1.MountResponse{
		ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "o", Version: "1"}},
		Files:         []*v1alpha1.File{{Path: "f", Mode: 420, Contents: []byte("c")}},
	})
	if err != nil {
		f.Fatal(err)
	}
	failed, err := proto.Marshal(toStatus(provider.Errors{{Kind: provider.Denied, Object: "o", Message: "m"}, {RetryAfter: 1 << 60}}).Proto())
	if err != nil {
		f.Fatal(err)
	}
	tokens := `{"csi.storage.k8s.io/serviceAccount.tokens":"{\"a\":{\"token\":\"t\",\"expirationTimestamp\":\"2026-01-01T00:00:00Z\"}}"}`
	f.Add(`{"a":"b","csi.storage.k8s.io/pod.name":"p"}`, "null", "420", answer, failed)
	f.Add(tokens, tokens, "0", []byte{}, []byte{})
	f.Add("", `{"a":1}`, `"420"`, []byte{0x1a, 2, 0x10, 0xff}, []byte{8, 1})
	f.Fuzz(func(t *testing.T, attributes, secrets, permission string, answer, failed []byte) {
		fuzzRequest(t, &v1alpha1.MountRequest{Attributes: attributes, Secrets: secrets, Permission: permission})
		fuzzAnswer(t, answer)
		fuzzStatus(t, failed)
	})
}

func fuzzRequest(t *testing.T, in *v1alpha1.MountRequest) {
	req, err := decodeRequest(in)
	if err != nil {
		if provider.KindOf(err) != provider.Invalid {
			t.Fatalf("a bad request is of kind %v", provider.KindOf(err))
		}
		return
	}
	if req.DefaultMode&^0o777 != 0 {
		t.Fatalf("mode %v", req.DefaultMode)
	}
	for audience, token := range req.Tokens {
		if token.Proof == provider.ProvenByRequest && !strings.Contains(in.Secrets, "serviceAccount.tokens") &&
			!strings.Contains(in.Secrets, `\u`) {
			t.Fatalf("the token for %q counts as proven", audience)
		}
	}
	out, err := encodeRequest(req)
	if err != nil {
		t.Fatalf("encoding what was decoded: %v", err)
	}
	again, err := decodeRequest(out)
	if err != nil {
		t.Fatalf("decoding what was encoded: %v", err)
	}
	if again.Parameters != nil && req.Parameters == nil {
		req.Parameters = map[string]string{}
	}
	// Times beyond RFC 3339 do not travel, and zones become UTC.
	for _, tokens := range []map[string]provider.Token{req.Tokens, again.Tokens} {
		for audience, token := range tokens {
			token.Expires = token.Expires.UTC()
			tokens[audience] = token
		}
	}
	if !reflect.DeepEqual(req, again) {
		t.Fatalf("%+v became %+v", req, again)
	}
}

func fuzzAnswer(t *testing.T, data []byte) {
	var in v1alpha1.MountResponse
	if proto.Unmarshal(data, &in) != nil {
		return
	}
	b, err := decodeBundle(&in)
	if (b == nil) == (err == nil) {
		t.Fatal("neither or both of bundle and error")
	}
	if b == nil {
		return
	}
	for _, file := range b.Files {
		if file.Mode&^0o777 != 0 || len(file.Path) > maxPathBytes {
			t.Fatalf("file %q has mode %v", file.Path, file.Mode)
		}
	}
	if len(b.Files) > 0 && len(b.Versions) == 0 {
		t.Fatal("files of no object")
	}
}

func fuzzStatus(t *testing.T, data []byte) {
	var in spb.Status
	if proto.Unmarshal(data, &in) != nil {
		return
	}
	err := fromStatus(status.FromProto(&in))
	if status.Code(err) != codes.Unknown {
		t.Fatal("the provider's code is carried on")
	}
	failures := provider.ErrorsOf(err)
	if len(failures) == 0 || len(failures) > maxFailures {
		t.Fatalf("%d failures", len(failures))
	}
	for _, e := range failures {
		if len(e.Error()) > 2*maxTextBytes+maxObjectBytes || !utf8.ValidString(e.Error()) || strings.ContainsAny(e.Error(), "\x00\x1b\r") {
			t.Fatalf("text %q", e.Error())
		}
		if e.Message == "" || e.RetryAfter < 0 || e.RetryAfter > maxRetryAfter {
			t.Fatalf("failure %+v", e)
		}
	}
}
