// Command mutants brings defects back on purpose, one at a time, and demands that the test which shows their absence turns
// red. It shows that the rows of docs/conformance.md about defects (section 10.1) are not green by themselves.
//
// Each *.diff beside this file is one mutant. Lines before the diff say what it is about:
//
//	row: 10.1/1-empty-unmounted-directory
//	package: ./internal/publish
//	test: TestRootALostMountIsAFirstMount
//	tags: integration            (if the test needs them)
//
// The work tree is copied, without what git does not know, to a folder that is always the same, so that the go command's cache
// serves from run to run. There every named test must pass, and with its mutant compile and fail. It uses nothing of the
// module, and git for the diffs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	rows   = "internal/conformance/rows.tsv"
	prefix = "10.1/" // every row that begins so must have a mutant
	folder = "test/mutants"
	copied = ".cache/mutants"
)

func main() {
	only := flag.String("run", "", "run the mutants whose names match this `regexp`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *only); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	mutants, err := load(folder)
	if err != nil {
		return err
	}
	if err := complete(mutants); err != nil {
		return err
	}
	mutants = slices.DeleteFunc(mutants, func(m *mutant) bool { return !wanted.MatchString(m.name) })
	root, err := filepath.Abs(copied)
	if err != nil {
		return err
	}
	tree, err := copyTree(ctx, root)
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)

	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "MUTANT\tROW\tTEST\tRESULT\tTOOK")
	failures := 0
	for _, m := range mutants {
		started := time.Now()
		verdict := m.try(ctx, tree)
		if err := ctx.Err(); err != nil {
			return err
		}
		if verdict != nil {
			failures++
		}
		fmt.Fprintf(table, "%s\t%s\t%s %s\t%s\t%.0fs\n", m.name, m.row, m.pkg, m.test, result(verdict), time.Since(started).Seconds())
		fmt.Fprintf(os.Stderr, "%s: %s\n", m.name, result(verdict)) // the table comes at the end
	}
	table.Flush()
	if failures > 0 {
		return fmt.Errorf("%d of %d mutants were not killed", failures, len(mutants))
	}
	return nil
}

func result(verdict error) string {
	if verdict == nil {
		return "killed"
	}
	return strings.ReplaceAll(verdict.Error(), "\n", "; ")
}

// complete holds the mutants to the rows: every row of the section has one, and none is of another row.
func complete(mutants []*mutant) error {
	text, err := os.ReadFile(rows)
	if err != nil {
		return fmt.Errorf("run it from the root of the repository: %w", err)
	}
	missing := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if id, _, _ := strings.Cut(line, "\t"); strings.HasPrefix(id, prefix) {
			missing[id] = true
		}
	}
	known := len(missing)
	for _, m := range mutants {
		if !strings.Contains("\n"+string(text), "\n"+m.row+"\t") {
			return fmt.Errorf("%s: %s has no row %q", m.name, rows, m.row)
		}
		delete(missing, m.row)
	}
	if known == 0 || len(missing) > 0 {
		var names []string
		for id := range missing {
			names = append(names, id)
		}
		slices.Sort(names)
		return fmt.Errorf("of %d rows, these have no mutant: %s", known, strings.Join(names, ", "))
	}
	return nil
}
