//go:build integration && linux

// Package bench measures a node: the driver's handlers in this process, and the released program against a real API server
// and the emulator of Azure.
//
// It is one Go benchmark, run once by `make bench`, which writes its block of docs/performance.md, and by `make bench-check`,
// which only holds what is counted (requests, allocations, and memory under a generous ceiling) to its limits. Times are
// reported and never gate. It runs as root, in a mount namespace of its own.
package bench

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"keymount/internal/benchdoc"
	"keymount/internal/volume/volumetest"
	"keymount/test/integration/driver"
)

var (
	document = flag.String("document", "", "the document whose block is written")
	check    = flag.Bool("check", false, "measure little: only what is counted matters")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(volumetest.Run(func() int {
		defer driver.RemoveBinary()
		return m.Run()
	}))
}

// BenchmarkNode measures everything once, whatever b.N is: -benchtime 1x.
func BenchmarkNode(b *testing.B) {
	volumetest.NeedRoot(b)
	r := &report{B: b}
	handlers(r) // first: later this process serves an API server's clients and an emulator
	e := newEnvironment(b)
	firstMounts(r, e)
	together(r, e)
	refreshes(r, e)
	syncs(r, e)
	residents(r, e)
	fmt.Print(r.text())
	if *document != "" && !b.Failed() {
		if err := benchdoc.Write(*document, "make bench, node", r.text()); err != nil {
			b.Fatal(err)
		}
	}
}

// of returns one of two numbers: how often something is done to be measured, and how often to be counted only.
func of(measured, counted int) int {
	if *check {
		return counted
	}
	return measured
}
