// Command keymount writes secrets, keys and certificates into files, without Kubernetes. All of it is internal/cli; this
// package only connects it to the process, and is the only place that exits.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"keymount/internal/cli"
)

// version is set at link time.
var version = "development"

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Run(ctx, cli.Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Version: version}, os.Args[1:])
}
