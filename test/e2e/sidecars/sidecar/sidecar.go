//go:build integration && linux

// Package sidecar is what the stand-ins for the CSI sidecars have in common: the life of the process and the connection to
// the driver. The sidecars themselves are no Go modules to be had, and tests need containers that take their arguments. It
// imports nothing of the product. Its functions may be called concurrently.
package sidecar

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Main runs a sidecar until SIGTERM or SIGINT and returns its exit code.
func Main(name string, run func(ctx context.Context, args []string, stderr io.Writer) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, name+": "+err.Error())
		return 1
	}
	return 0
}

// Dial returns a connection to the driver's socket, a path with or without unix://. It connects at the first call.
func Dial(address string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix:"+strings.TrimPrefix(address, "unix://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connecting to the driver at %s: %w", address, err)
	}
	return conn, nil
}
