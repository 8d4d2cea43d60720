package v1alpha1_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"keymount/api/provider/v1alpha1"
)

// wire is the protocol as providers in use speak it: every field of every message, with its number and type.
const wire = `
Error 1 code string
File 1 path string
File 2 mode int32
File 3 contents bytes
MountRequest 1 attributes string
MountRequest 2 secrets string
MountRequest 3 target_path string
MountRequest 4 permission string
MountRequest 5 current_object_version repeated v1alpha1.ObjectVersion
MountResponse 1 object_version repeated v1alpha1.ObjectVersion
MountResponse 2 error v1alpha1.Error
MountResponse 3 files repeated v1alpha1.File
ObjectVersion 1 id string
ObjectVersion 2 version string
VersionRequest 1 version string
VersionResponse 1 version string
VersionResponse 2 runtime_name string
VersionResponse 3 runtime_version string
`

func TestFieldsAreThoseOfTheProtocol(t *testing.T) {
	t.Attr("conformance", "12.4/fields")
	want := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(wire), "\n") {
		want[line] = true
	}
	messages := v1alpha1.File_service_proto.Messages()
	for i := range messages.Len() {
		fields := messages.Get(i).Fields()
		for j := range fields.Len() {
			got := describe(messages.Get(i), fields.Get(j))
			if !want[got] {
				t.Errorf("%q is not in the protocol", got)
			}
			delete(want, got)
		}
	}
	for line := range want {
		t.Errorf("%q is missing", line)
	}
}

func describe(m protoreflect.MessageDescriptor, f protoreflect.FieldDescriptor) string {
	typ := f.Kind().String()
	if f.Kind() == protoreflect.MessageKind {
		typ = string(f.Message().FullName())
	}
	if f.Cardinality() == protoreflect.Repeated {
		typ = "repeated " + typ
	}
	return fmt.Sprintf("%s %d %s %s", m.Name(), f.Number(), f.Name(), typ)
}

func TestMethodNames(t *testing.T) {
	t.Attr("conformance", "12.4/method-names")
	if got := v1alpha1.CSIDriverProvider_Mount_FullMethodName; got != "/v1alpha1.CSIDriverProvider/Mount" {
		t.Errorf("Mount is %q", got)
	}
	if got := v1alpha1.CSIDriverProvider_Version_FullMethodName; got != "/v1alpha1.CSIDriverProvider/Version" {
		t.Errorf("Version is %q", got)
	}
	desc := v1alpha1.CSIDriverProvider_ServiceDesc
	if desc.ServiceName != "v1alpha1.CSIDriverProvider" || len(desc.Methods) != 2 || len(desc.Streams) != 0 {
		t.Errorf("service %q has %d methods and %d streams", desc.ServiceName, len(desc.Methods), len(desc.Streams))
	}
}

// The bytes are written by hand from the protocol buffer encoding (tag = number<<3 | type), not by this code.
func TestGoldenBytes(t *testing.T) {
	for _, tc := range []struct {
		name    string
		message proto.Message
		empty   proto.Message
		hex     string
	}{
		{
			name: "request",
			message: &v1alpha1.MountRequest{
				Attributes: "{}", Secrets: "null", TargetPath: "/t", Permission: "420",
				CurrentObjectVersion: []*v1alpha1.ObjectVersion{{Id: "a", Version: "1"}},
			},
			empty: &v1alpha1.MountRequest{},
			hex: "0a02 7b7d" + "1204 6e756c6c" + "1a02 2f74" + "2203 343230" +
				"2a06 0a0161 120131",
		},
		{
			name: "response",
			message: &v1alpha1.MountResponse{
				ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "a", Version: ""}},
				Error:         &v1alpha1.Error{Code: "E"},
				Files:         []*v1alpha1.File{{Path: "f", Mode: 420, Contents: []byte{0, 255}}},
			},
			empty: &v1alpha1.MountResponse{},
			hex:   "0a03 0a0161" + "1203 0a0145" + "1a0a 0a0166 10a403 1a0200ff",
		},
		{
			name:    "version",
			message: &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: "n", RuntimeVersion: "v"},
			empty:   &v1alpha1.VersionResponse{},
			hex:     "0a08 7631616c70686131 12016e 1a0176",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			golden, err := hex.DecodeString(strings.ReplaceAll(tc.hex, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			got, err := proto.MarshalOptions{Deterministic: true}.Marshal(tc.message)
			if err != nil || string(got) != string(golden) {
				t.Errorf("marshalled to %x (%v), want %x", got, err, golden)
			}
			if err := proto.Unmarshal(golden, tc.empty); err != nil || !proto.Equal(tc.empty, tc.message) {
				t.Errorf("unmarshalled to %v (%v)", tc.empty, err)
			}
		})
	}
}
