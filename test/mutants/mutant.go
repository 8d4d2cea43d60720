package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// A mutant is one defect brought back, and the test that must notice.
type mutant struct {
	name, row, pkg, test, tags string
	diff                       string // path
}

// testRule is what the name of a test looks like; subtests are run with it.
var testRule = regexp.MustCompile(`^Test\w+$`)

// load reads every mutant of a folder, by name.
func load(dir string) ([]*mutant, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.diff"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("there is no mutant in %s: run it from the root of the repository", dir)
	}
	var out []*mutant
	for _, path := range paths {
		m, err := parse(path)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func parse(path string) (*mutant, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	m := &mutant{name: strings.TrimSuffix(filepath.Base(path), ".diff"), diff: absolute}
	fields := map[string]*string{"row": &m.row, "package": &m.pkg, "test": &m.test, "tags": &m.tags}
	head, _, found := strings.Cut(string(text), "\n--- ")
	for line := range strings.Lines(head) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if field := fields[key]; field != nil {
			*field = value
		}
	}
	switch {
	case !found:
		return nil, fmt.Errorf("%s: it holds no diff", path)
	case m.row == "" || !strings.HasPrefix(m.pkg, "./") || !testRule.MatchString(m.test):
		return nil, fmt.Errorf("%s: it needs lines row:, package: (as in ./internal/x) and test: (the name of one test)", path)
	}
	return m, nil
}

// try says why the mutant was not killed, nil if it was.
func (m *mutant) try(ctx context.Context, t *tree) error {
	without := t.measure(ctx, m)
	if without.err != nil {
		return without.err
	}
	if err := t.apply(ctx, m.diff); err != nil {
		return fmt.Errorf("it does not apply any more: %w", err)
	}
	err := m.kill(ctx, t, patience+patient*without.took)
	return errors.Join(err, t.revert(ctx, m.diff))
}

func (m *mutant) kill(ctx context.Context, t *tree, within time.Duration) error {
	program, err := t.compile(ctx, m)
	if err != nil {
		return fmt.Errorf("it does not compile: %w", err)
	}
	switch outcome, text := t.test(ctx, m, program, within); outcome {
	case failed:
		return nil
	case passed:
		return fmt.Errorf("SURVIVED: %s passes with it", m.test)
	default:
		return fmt.Errorf("%s %s with it: %s", m.test, outcome, text)
	}
}
