package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

func printTable(w io.Writer, results []result) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "20 SECRETS\tREQUESTS\tLIMIT\tTO THE VAULT\tP50\tP99\tALLOCATIONS\tUPSTREAM")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", r.work, r.requests, r.limit, r.vault, ms(r.p50), ms(r.p99), r.memory(), r.upstream)
	}
	t.Flush()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func (r *result) memory() string {
	if r.allocations == 0 {
		return "-"
	}
	return fmt.Sprintf("%d (%d KiB)", r.allocations, r.bytes/1024)
}

const (
	blockBegin = "<!-- make bench: begin -->"
	blockEnd   = "<!-- make bench: end -->"
)

func block(results []result) string {
	var b strings.Builder
	where := "in memory"
	if volumesIn() == "" {
		where = "on disk"
	}
	fmt.Fprintf(&b, "%s\n", blockBegin)
	fmt.Fprintf(&b, "Taken on commit %s with %s on %d cores, by `make bench`. The emulator answers reads after %d ms, token requests after %d ms and\n"+
		"discovery documents after %d ms, over TLS and HTTP/2. A mount is whole: the class's parameters, the identity, 20 secrets, and a generation of 20\n"+
		"files written to a folder %s. Requests are counted at the emulator, in the worst round; `make verify` fails if they exceed the limit. Allocations are the\n"+
		"median, in the provider's process.\n\n", commit(), runtime.Version(), runtime.NumCPU(), vaultLatency.Milliseconds(), tokenLatency.Milliseconds(), discoveryLatency.Milliseconds(), where)
	fmt.Fprintln(&b, "| mount of 20 secrets | requests | limit | p50 | p99 | allocations | upstream |")
	fmt.Fprintln(&b, "|---|---|---|---|---|---|---|")
	for _, r := range results {
		work := r.work
		if r.wall > 0 {
			work += fmt.Sprintf(" (%s in all)", ms(r.wall))
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %s | %s | %s | %s |\n", work, r.requests, r.limit, ms(r.p50), ms(r.p99), r.memory(), r.upstream)
	}
	fmt.Fprintf(&b, "%s\n", blockEnd)
	return b.String()
}

// commit is what was measured.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// writeBlock replaces the block in the document, or adds it at the end.
func writeBlock(document string, results []result) error {
	text, err := os.ReadFile(document)
	if os.IsNotExist(err) {
		if err := os.MkdirAll(filepath.Dir(document), 0o755); err != nil {
			return fmt.Errorf("writing the results: %w", err)
		}
		text, err = []byte("# Performance\n"), nil
	}
	if err != nil {
		return fmt.Errorf("reading the former results: %w", err)
	}
	before, rest, found := bytes.Cut(text, []byte(blockBegin))
	if !found {
		before, rest = append(bytes.TrimRight(text, "\n"), "\n\n"...), []byte(blockEnd+"\n")
	}
	_, after, found := bytes.Cut(rest, []byte(blockEnd+"\n"))
	if !found {
		return fmt.Errorf("%s has %q without %q after it", document, blockBegin, blockEnd)
	}
	out := append(append(before, block(results)...), after...)
	if err := os.WriteFile(document, out, 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	return nil
}
