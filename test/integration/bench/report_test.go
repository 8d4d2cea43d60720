//go:build integration && linux

package bench

import (
	"fmt"
	"strings"
	"testing"

	"keymount/internal/benchdoc"
)

// A report collects the rows of the tables, and fails the benchmark where a limit is exceeded.
type report struct {
	*testing.B
	handlers, requests, processes [][]string
}

// most holds a number to its limit and returns both as table cells.
func (r *report) most(what string, got, limit int) (cell, limitCell string) {
	r.Helper()
	if got > limit {
		r.Errorf("%s: %d, at most %d are promised", what, got, limit)
	}
	return fmt.Sprint(got), fmt.Sprint(limit)
}

// handler adds a row of work in this process.
func (r *report) handler(work string, s samples, maxAllocations int, target, upstream string) {
	r.Helper()
	allocations, limit := r.most("allocations of "+work, s.allocations, maxAllocations)
	p50, p99 := fine(s.times, 50), fine(s.times, 99)
	r.handlers = append(r.handlers, []string{work, p50, p99, allocations, limit, target, upstream})
}

// request adds a row of requests, of which there may be so many.
func (r *report) request(work string, got, limit int, took, upstream string) {
	r.Helper()
	requests, most := r.most(work, got, limit)
	r.requests = append(r.requests, []string{work, requests, most, took, upstream})
}

func (r *report) text() string {
	table := func(head []string, rows [][]string) string { return benchdoc.Table(append([][]string{head}, rows...)) }
	return strings.Join([]string{
		"Taken on " + benchdoc.Origin() + ", by `make bench`. `make verify` fails if requests or allocations exceed the limit,\n" +
			"or an idle driver the ceiling; times depend on the machine, and gate nothing.\n",
		"In the handler, in this process: the CSI calls with metrics and log, a provider in the process that answers one file at once,\n" +
			"records on disk, and nobody to tell the status. The volume is a tmpfs; the request carries a service account token.\n",
		table([]string{"work", "p50", "p99", "allocations", "limit", "target", "upstream"}, r.handlers),
		fmt.Sprintf("The program, over its socket, against kube-apiserver and the emulator (reads after %d ms, token requests after %d ms, discovery\n"+
			"documents after %d ms). Each pod has one volume with the %d secrets of one class, read by workload identity with a token of its\n"+
			"own. Requests to the API server are those of its audit log.\n",
			vaultLatency.Milliseconds(), tokenLatency.Milliseconds(), discoveryLatency.Milliseconds(), secrets),
		table([]string{"work", "requests", "limit", "took", "upstream"}, r.requests),
		"The program with the Azure provider in it and rotation on. Memory is what stays resident after rounds of republish with nothing\n" +
			"due, of it heap and stacks the part that is no file; CPU is that of one republish over the socket, and of a core if kubelet asks\n" +
			"every 75 s.\n",
		table([]string{"volumes", "resident memory", "of it anonymous", "CPU of a republish", "CPU at kubelet's pace", "target", "upstream"}, r.processes),
	}, "\n")
}
