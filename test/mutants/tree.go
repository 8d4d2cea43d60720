package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A test may take patience longer than patient times what it takes without a mutant; one that hangs with it has noticed it.
const (
	patience = 20 * time.Second
	patient  = 5
	longest  = 5 * time.Minute // without a mutant
)

// A tree is a copy of the work tree, in which mutants are made.
type tree struct {
	root  string
	bin   string
	sound map[string]baseline // by package and test
}

// A baseline is how a test fared without a mutant.
type baseline struct {
	err  error
	took time.Duration
}

// copyTree copies what git tracks, as it is in the work tree.
func copyTree(ctx context.Context, root string) (*tree, error) {
	list, err := exec.CommandContext(ctx, "git", "ls-files", "-z").Output()
	if err != nil {
		return nil, fmt.Errorf("listing the files that git tracks: %w", err)
	}
	if err := os.RemoveAll(root); err != nil {
		return nil, err
	}
	t := &tree{root: filepath.Join(root, "tree"), bin: filepath.Join(root, "bin"), sound: map[string]baseline{}}
	if err := os.MkdirAll(t.bin, 0o755); err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		if err := copyFile(name, filepath.Join(t.root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) { // deleted, not yet committed
			return nil, fmt.Errorf("copying the work tree: %w", err)
		}
	}
	return t, nil
}

func copyFile(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}

// measure makes sure, once, that the test of a mutant runs and passes without it.
func (t *tree) measure(ctx context.Context, m *mutant) baseline {
	key := m.pkg + " " + m.test
	if b, known := t.sound[key]; known {
		return b
	}
	var b baseline
	program, err := t.compile(ctx, m)
	if err != nil {
		b.err = fmt.Errorf("the tests do not compile: %w", err)
	} else {
		started := time.Now()
		outcome, text := t.test(ctx, m, program, longest)
		b.took = time.Since(started)
		if outcome != passed {
			b.err = fmt.Errorf("%s %s without it: %s", m.test, outcome, text)
		}
	}
	t.sound[key] = b
	return b
}

func (t *tree) apply(ctx context.Context, diff string) error  { return t.git(ctx, "apply", diff) }
func (t *tree) revert(ctx context.Context, diff string) error { return t.git(ctx, "apply", "-R", diff) }

// git works in the copy as if it lay in no repository.
func (t *tree) git(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = t.root
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(t.root))
	return output(cmd)
}

// compile builds the test program of the mutant's package, and the daemon where the test runs it: so that a mutant that is no
// Go is not taken for one that was killed.
func (t *tree) compile(ctx context.Context, m *mutant) (program string, err error) {
	program = filepath.Join(t.bin, "package.test")
	if m.tags != "" {
		if err := t.goTool(ctx, "build", "-race", "-o", os.DevNull, "./cmd/keymount-driver"); err != nil {
			return "", err
		}
	}
	return program, t.goTool(ctx, "test", "-race", "-vet=off", "-tags", m.tags, "-c", "-o", program, m.pkg)
}

func (t *tree) goTool(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = t.root
	return output(cmd)
}

func output(cmd *exec.Cmd) error {
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args[:2], " "), err, end(text))
	}
	return nil
}

// An outcome is how a test ended.
type outcome string

const (
	passed  outcome = "passes"
	failed  outcome = "fails"
	skipped outcome = "skips itself (does it need root?)"
	broken  outcome = "did not run"
)

// test runs the test as the go command does: in the folder of its package.
func (t *tree) test(ctx context.Context, m *mutant, program string, within time.Duration) (outcome, string) {
	cmd := exec.CommandContext(ctx, program, "-test.run=^"+m.test+"$", "-test.count=1", "-test.v", "-test.timeout="+within.String())
	cmd.Dir = filepath.Join(t.root, m.pkg)
	cmd.WaitDelay = 10 * time.Second
	text, err := cmd.CombinedOutput()
	ran := func(what string) bool { return bytes.Contains(text, []byte("--- "+what+": "+m.test+" ")) }
	switch {
	case err == nil && ran("PASS"):
		return passed, ""
	case err == nil && ran("SKIP"):
		return skipped, ""
	case ran("FAIL"), bytes.Contains(text, []byte("=== RUN   "+m.test)) && bytes.Contains(text, []byte("panic: ")):
		return failed, end(text) // by itself, by a panic, or because it hangs
	}
	return broken, end(text)
}

// end is the end of an output.
func end(text []byte) string {
	const most = 600
	text = bytes.TrimSpace(text)
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return string(text)
}
