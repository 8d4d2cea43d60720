//go:build integration && linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keymount/api/provider/v1alpha1"
	"keymount/test/e2e/launch"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"writer": main})
}

func TestWritesItsFilesItself(t *testing.T) {
	dir := t.TempDir()
	p, client := launch.Provider(t, "writer", filepath.Join(dir, "writer.sock"))
	target := filepath.Join(dir, "volume")
	mount := func(content string) (*v1alpha1.MountResponse, error) {
		return client.Mount(t.Context(), &v1alpha1.MountRequest{Secrets: "null", TargetPath: target, Permission: "420",
			Attributes: `{"file.a/plain":"` + content + `","file.b":"b","mode.b":"0400"}`})
	}
	if _, err := mount("one"); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "mountPropagation HostToContainer") {
		t.Errorf("without the volume: %v", err)
	}
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	versions := map[string]bool{}
	for _, content := range []string{"one", "two", "two"} {
		answer, err := mount(content)
		if err != nil {
			t.Fatal(err)
		}
		if len(answer.GetFiles()) != 0 || len(answer.GetObjectVersion()) != 2 {
			t.Errorf("the answer is %v, want versions only", answer)
		}
		versions[answer.GetObjectVersion()[0].GetVersion()] = true
		for name, want := range map[string]struct {
			content string
			mode    os.FileMode
		}{"a/plain": {content, 0o644}, "b": {"b", 0o400}} {
			got, err := os.ReadFile(filepath.Join(target, name))
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(filepath.Join(target, name))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != want.content || info.Mode() != want.mode {
				t.Errorf("%s holds %q with mode %v", name, got, info.Mode())
			}
		}
	}
	if len(versions) != 2 {
		t.Errorf("two contents have %d versions", len(versions))
	}
	p.Term(t)
	if code, said := p.Wait(t); code != 0 {
		t.Errorf("it ended with %d and said %q", code, said)
	}
}
