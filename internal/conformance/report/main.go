// Command report reads the output of `go test -json` on standard input and writes docs/conformance.md to standard output.
// It exits 1 if a row has no passing test or a test claims a row that does not exist.
package main

import (
	"fmt"
	"os"

	"keymount/internal/conformance"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	rows, err := conformance.Rows()
	if err != nil {
		return err
	}
	claims, err := conformance.Read(os.Stdin)
	if err != nil {
		return err
	}
	return conformance.Write(os.Stdout, rows, claims)
}
