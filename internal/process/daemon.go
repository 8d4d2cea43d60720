package process

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// A UsageError is a command line that makes no sense.
type UsageError struct{ Err error }

// Error returns the text of what is wrong.
func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e UsageError) Unwrap() error { return e.Err }

// Main is the life of a daemon of that name: hardened before it reads anything, with a context that SIGINT and SIGTERM end, a
// second one of which ends the process at once. It returns the exit code for main: 0 after a clean stop or help, 2 for a
// UsageError, 1 for every other error, each of which is printed.
func Main(name string, run func(ctx context.Context, args []string, stdout, stderr io.Writer) error) int {
	err := Harden()
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		context.AfterFunc(ctx, stop)
		err = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	return report(os.Stderr, name, err)
}

func report(stderr io.Writer, name string, err error) (code int) {
	var usage UsageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "%s: %v\n%s --help lists the flags\n", name, err, name)
		return 2
	}
	fmt.Fprintf(stderr, "%s: %v\n", name, err)
	return 1
}
