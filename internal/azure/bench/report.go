package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"keymount/internal/benchdoc"
)

func printTable(w io.Writer, results []result) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "20 SECRETS\tREQUESTS\tLIMIT\tTO THE VAULT\tP50\tP99\tALLOCATIONS\tUPSTREAM")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", r.work, r.requests, r.limit, r.vault, benchdoc.Milliseconds(r.p50), benchdoc.Milliseconds(r.p99), r.memory(), r.upstream)
	}
	t.Flush()
}

func (r *result) memory() string {
	if r.allocations == 0 {
		return "-"
	}
	return fmt.Sprintf("%d (%d KiB)", r.allocations, r.bytes/1024)
}

// blockName marks this program's block of the document.
const blockName = "make bench"

func block(results []result) string {
	var b strings.Builder
	where := "in memory"
	if volumesIn() == "" {
		where = "on disk"
	}
	fmt.Fprintf(&b, "Taken on %s, by `make bench`. The emulator answers reads after %d ms, token requests after %d ms and\n"+
		"discovery documents after %d ms, over TLS and HTTP/2. A mount is whole: the class's parameters, the identity, 20 secrets, and a generation of 20\n"+
		"files written to a folder %s. Requests are counted at the emulator, in the worst round; `make verify` fails if they exceed the limit. Allocations are the\n"+
		"median, in the provider's process.\n\n", benchdoc.Origin(), vaultLatency.Milliseconds(), tokenLatency.Milliseconds(), discoveryLatency.Milliseconds(), where)
	rows := [][]string{{"mount of 20 secrets", "requests", "limit", "p50", "p99", "allocations", "upstream"}}
	for _, r := range results {
		work := r.work
		if r.wall > 0 {
			work += fmt.Sprintf(" (%s in all)", benchdoc.Milliseconds(r.wall))
		}
		rows = append(rows, []string{work, fmt.Sprint(r.requests), fmt.Sprint(r.limit), benchdoc.Milliseconds(r.p50), benchdoc.Milliseconds(r.p99), r.memory(), r.upstream})
	}
	return b.String() + benchdoc.Table(rows)
}
