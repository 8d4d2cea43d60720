//go:build integration && linux

package main

import (
	"encoding/json"
	"net"
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
	testscript.Main(m, map[string]func(){"returner": main})
}

func request(t *testing.T, attributes map[string]string) *v1alpha1.MountRequest {
	t.Helper()
	b, err := json.Marshal(attributes)
	if err != nil {
		t.Fatal(err)
	}
	return &v1alpha1.MountRequest{Attributes: string(b), Secrets: "null", TargetPath: "/volume", Permission: "420"}
}

func TestReturnsWhatTheParametersName(t *testing.T) {
	dir := t.TempDir()
	// As a ConfigMap is mounted: a link to a link to the file.
	content := filepath.Join(dir, "content")
	write := func(folder, text string) {
		if err := os.MkdirAll(filepath.Join(content, folder), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(content, folder, "token"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(folder, filepath.Join(content, "..new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(content, "..new"), filepath.Join(content, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	write("..1", "one")
	if err := os.Symlink("..data/token", filepath.Join(content, "token")); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "log")
	p, client := launch.Provider(t, "returner", filepath.Join(dir, "returner.sock"), "--content", content, "--log", log)
	attributes := map[string]string{"file.a/plain": "text", "mode.a/plain": "0400", "from.fresh": "token",
		"csi.storage.k8s.io/pod.name": "web", "csi.storage.k8s.io/pod.namespace": "shop", "other": "ignored"}
	mount := func() *v1alpha1.MountResponse {
		answer, err := client.Mount(t.Context(), request(t, attributes))
		if err != nil {
			t.Fatal(err)
		}
		if len(answer.GetFiles()) != 2 || len(answer.GetObjectVersion()) != 2 {
			t.Fatalf("the answer is %v", answer)
		}
		return answer
	}
	first := mount()
	for i, want := range []*v1alpha1.File{{Path: "a/plain", Mode: 0o400, Contents: []byte("text")}, {Path: "fresh", Mode: 0o644, Contents: []byte("one")}} {
		if got := first.GetFiles()[i]; got.GetPath() != want.GetPath() || got.GetMode() != want.GetMode() || string(got.GetContents()) != string(want.GetContents()) {
			t.Errorf("file %d is %v, want %v", i, got, want)
		}
	}
	write("..2", "two")
	second := mount()
	if got := string(second.GetFiles()[1].GetContents()); got != "two" {
		t.Errorf("the changed file is %q", got)
	}
	for i, changes := range []bool{false, true} {
		if a, b := first.GetObjectVersion()[i], second.GetObjectVersion()[i]; (a.GetVersion() != b.GetVersion()) != changes || len(a.GetVersion()) != 12 {
			t.Errorf("the versions of %s are %s and %s", a.GetId(), a.GetVersion(), b.GetVersion())
		}
	}
	p.Term(t)
	if code, said := p.Wait(t); code != 0 || said != "" {
		t.Errorf("it ended with %d and said %q", code, said)
	}
	logged, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(logged), `"msg":"mount","pod":"shop/web"`) != 2 || strings.Contains(string(logged), "two") {
		t.Errorf("it logged %s", logged)
	}
}

func TestFailures(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "outside"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	content := filepath.Join(dir, "content")
	if err := os.Mkdir(content, 0o700); err != nil {
		t.Fatal(err)
	}
	_, client := launch.Provider(t, "returner", filepath.Join(dir, "returner.sock"), "--content", content)
	for _, tc := range []struct {
		name, key, value string
		code             codes.Code
		want             string
	}{
		{"file that is not there", "from.x", "absent", codes.NotFound, `reading "absent" for "x"`},
		{"file outside the folder", "from.x", "../outside", codes.NotFound, `reading "../outside" for "x"`},
		{"path outside the volume", "file.../x", "", codes.InvalidArgument, `"../x" is no path in a volume`},
		{"mode that is none", "mode.a", "0888", codes.InvalidArgument, `reading the mode of "a"`},
		{"mode with more than permissions", "mode.a", "4755", codes.InvalidArgument, `reading the mode of "a"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := client.Mount(t.Context(), request(t, map[string]string{"file.a": "text", tc.key: tc.value}))
			if status.Code(err) != tc.code || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %v with %q", err, tc.code, tc.want)
			}
		})
	}
	if _, err := client.Mount(t.Context(), request(t, nil)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a class without files: %v", err)
	}
	answer, err := client.Mount(t.Context(), request(t, map[string]string{"file.a": "text", "error": "Teapot"}))
	if err != nil || answer.GetError().GetCode() != "Teapot" || len(answer.GetFiles()) != 0 {
		t.Errorf("a class that asks for an error: %v, %v", answer, err)
	}
}

func TestSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "returner.sock")
	// One that a killed process left.
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	p, _ := launch.Provider(t, "returner", socket)
	info, err := os.Lstat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket's mode is %v", info.Mode())
	}
	p.Term(t)
	if code, said := p.Wait(t); code != 0 {
		t.Errorf("it ended with %d and said %q", code, said)
	}
	if _, err := os.Lstat(socket); err == nil {
		t.Error("it left its socket")
	}

	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said := launch.Start(t, "returner", "--endpoint", "unix://"+socket).Wait(t); code != 1 || !strings.Contains(said, "is no socket: move it away") {
		t.Errorf("a file in the socket's place: %d, %q", code, said)
	}
	if code, said := launch.Start(t, "returner", "--endpoint", "returner.sock").Wait(t); code != 1 || !strings.Contains(said, "give unix:///path") {
		t.Errorf("an endpoint that is none: %d, %q", code, said)
	}
	if code, said := launch.Start(t, "returner", "--help").Wait(t); code != 0 || !strings.Contains(said, "file.NAME: CONTENT") {
		t.Errorf("--help: %d, %q", code, said)
	}
}
