// Package source finds the project's source tree and says which commit it holds. It runs git and writes nothing. Its
// functions may be called concurrently.
package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Parts are the files and folders of the tree that the programs are made of.
func Parts() []string { return []string{"api", "cmd", "internal", "go.mod", "go.sum"} }

// A Commit is what the images say about their origin, and the time of everything in them.
type Commit struct {
	Revision string // with "-dirty" where the tree holds what the commit does not
	Time     time.Time
}

// Find returns the folder of the project's main module: dir or one above it.
func Find(dir string) (string, error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("finding the source: %w", err)
	}
	for at := start; ; at = filepath.Dir(at) {
		if b, err := os.ReadFile(filepath.Join(at, "go.mod")); err == nil && strings.HasPrefix(string(b), "module keymount\n") {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("finding the source: neither %s nor a folder above it has the go.mod of module keymount: name the work tree with --source", start)
		}
	}
}

// Read asks git for the commit of the work tree.
func Read(ctx context.Context, dir string) (Commit, error) {
	const remedy = "make the images from a git work tree, or give --revision and --created"
	line, err := git(ctx, dir, "log", "-1", "--format=%H %cI")
	if errors.Is(err, exec.ErrNotFound) {
		return Commit{}, fmt.Errorf("reading the commit of %s: git is not in PATH: install it, or give --revision and --created", dir)
	}
	if err != nil {
		return Commit{}, fmt.Errorf("reading the commit of %s (%s): %w", dir, remedy, err)
	}
	revision, date, _ := strings.Cut(line, " ")
	at, err := time.Parse(time.RFC3339, date)
	if err != nil {
		return Commit{}, fmt.Errorf("reading the commit's date in %s (%s): %w", dir, remedy, err)
	}
	// The folder of this program, too: it says what else is in the images, authorities above all.
	changed, err := git(ctx, dir, append([]string{"status", "--porcelain", "--", "images"}, Parts()...)...)
	if err != nil {
		return Commit{}, fmt.Errorf("looking for changes in %s (%s): %w", dir, remedy, err)
	}
	if changed != "" {
		revision += "-dirty"
	}
	return Commit{Revision: revision, Time: at}, nil
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && stderr.Len() > 0 {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}
