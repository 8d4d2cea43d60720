// Command bench measures mounts from Key Vault on the emulator, and holds the numbers of requests to what the design
// promises.
//
// It starts the emulator as a process of its own (itself, again), so that what it counts of CPU and memory is the
// provider's, and mounts as the product does: Fetch on the real transport over TLS, then a generation written to a folder.
// Without arguments it measures, prints a table and writes its block of docs/performance.md; with --check it only compares
// the numbers of requests with their limits and exits with 1 if one is exceeded. Times are reported and never gate. It
// may import whatever it measures, and nothing imports it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"keymount/internal/azure"
	"keymount/internal/benchdoc"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	check := flags.Bool("check", false, "compare the numbers of requests with their limits, and nothing else")
	document := flags.String("o", "docs/performance.md", "the document whose block is written")
	emulate := flags.Bool("emulate", false, "be the emulator (used by this program itself)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *emulate {
		return serveEmulator(stdin, stdout)
	}
	e, err := startEmulator(ctx)
	if err != nil {
		return err
	}
	defer e.stop()
	rounds, shareFor := 60, azure.DefaultShareFor
	if *check {
		rounds, shareFor = 3, time.Hour // a slow machine does not change what is counted
	}
	results, err := measure(ctx, e, rounds, shareFor)
	if err != nil {
		return err
	}
	printTable(stdout, results)
	if err := exceeded(results); err != nil || *check {
		return err
	}
	return benchdoc.Write(*document, blockName, block(results))
}
