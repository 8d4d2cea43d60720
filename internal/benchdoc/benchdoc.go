// Package benchdoc writes what benchmarks measured into a document, each into its own marked block, so that the numbers in
// the documentation are those of a run that can be repeated.
//
// It is for the programs behind `make bench` only and imports nothing of the module.
package benchdoc

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Origin says what was measured and where: commit, date, compiler and machine.
func Origin() string {
	return fmt.Sprintf("commit %s on %s with %s on %d cores", commit(), time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.NumCPU())
}

// commit is the work tree's, with "-dirty" if something else than documents was changed: one block is written before the
// next is measured.
func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	commit := strings.TrimSpace(string(out))
	if err := exec.Command("git", "diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude)docs").Run(); err != nil {
		commit += "-dirty"
	}
	return commit
}

// Milliseconds is a duration as tables show it.
func Milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}

// Percentile is by nearest rank; it sorts values.
func Percentile[T ~int64 | ~uint64](values []T, p int) T {
	slices.Sort(values)
	return values[max(0, (len(values)*p+99)/100-1)]
}

// Table is a table in Markdown. Its first row is the head.
func Table(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintln(&b, "|"+strings.Repeat("---|", len(row)))
		}
	}
	return b.String()
}

// Write replaces the block of that name in the document by text. The document has the block's marks: where it stands is for
// people to decide.
func Write(document, name, text string) error {
	begin, end := fmt.Appendf(nil, "<!-- %s: begin -->\n", name), fmt.Appendf(nil, "<!-- %s: end -->\n", name)
	old, err := os.ReadFile(document)
	if err != nil {
		return fmt.Errorf("reading the former results: %w", err)
	}
	before, rest, found := bytes.Cut(old, begin)
	_, after, closed := bytes.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("%s has no block %q", document, name)
	}
	out := slices.Concat(before, begin, []byte(text), end, after)
	if err := os.WriteFile(document, out, 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	return nil
}
