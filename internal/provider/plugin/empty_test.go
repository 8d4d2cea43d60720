package plugin_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/volume"
)

// An answer with nothing in it is a class without objects: what earlier answers put into the volume goes, and what a
// provider wrote there itself, in an earlier mode of its own, stays. An answer with versions only touches nothing.
func TestAnswersWithoutFilesWipeNothingOfTheProviders(t *testing.T) {
	t.Attr("conformance", "12.4/files-absent")
	t.Attr("conformance", "12.4/nothing-at-all")
	target := t.TempDir()
	versions := []*v1alpha1.ObjectVersion{{Id: "o", Version: "1"}}
	var answer *v1alpha1.MountResponse
	socket := socketPath(t)
	serveForeign(t, socket, func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) { return answer, nil })
	c := client(t, socket)
	for _, step := range []struct {
		name   string
		answer *v1alpha1.MountResponse
		self   bool
		want   map[string]bool // what is there afterwards
	}{
		{"files", &v1alpha1.MountResponse{ObjectVersion: versions, Files: []*v1alpha1.File{{Path: "f", Contents: []byte("c")}}},
			false, map[string]bool{"f": true, "own": true}},
		{"versions only", &v1alpha1.MountResponse{ObjectVersion: versions}, true, map[string]bool{"f": true, "own": true}},
		{"nothing", &v1alpha1.MountResponse{}, false, map[string]bool{"f": false, "own": true}},
	} {
		if err := os.WriteFile(filepath.Join(target, "own"), []byte("o"), 0o600); err != nil { // as a provider does
			t.Fatal(err)
		}
		answer = step.answer
		b, err := c.Fetch(deadline(t), request())
		if err != nil || b.SelfWritten != step.self {
			t.Fatalf("%s: got %+v, %v", step.name, b, err)
		}
		if !b.SelfWritten { // as publish does
			if err := volume.Check(b.Files); err != nil {
				t.Fatal(err)
			}
			if _, err := volume.Write(target, b.Files, volume.Options{}); err != nil {
				t.Fatal(err)
			}
		}
		for name, want := range step.want {
			if _, err := os.Stat(filepath.Join(target, name)); (err == nil) != want {
				t.Errorf("after %s: %s is there: %v", step.name, name, err == nil)
			}
		}
	}
}
