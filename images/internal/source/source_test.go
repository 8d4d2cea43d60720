package source

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever can change the images makes a work tree dirty, and nothing else does.
func TestDirty(t *testing.T) {
	for file, dirty := range map[string]bool{
		"": false, "README.md": false, "docs/x.md": false, "go.sum": true, "cmd/x/main.go": true, "internal/x/new.go": true, "images/go.sum": true,
	} {
		t.Run(file, func(t *testing.T) {
			dir := t.TempDir()
			run := func(args ...string) {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=x", "-c", "user.email=x@example.com"}, args...)...)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
				}
			}
			write := func(name string) {
				t.Helper()
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("go.mod")
			run("init", "--quiet")
			run("add", ".")
			run("commit", "--quiet", "--message", "first")
			if file != "" {
				write(file)
			}
			commit, err := Read(t.Context(), dir)
			if err != nil || commit.Time.IsZero() {
				t.Fatalf("%+v, %v", commit, err)
			}
			if got := strings.HasSuffix(commit.Revision, "-dirty"); got != dirty {
				t.Errorf("with %q the revision is %s", file, commit.Revision)
			}
		})
	}
}
