// Command keyvault-emulator runs Azure Key Vault and the Entra ID endpoints on this machine: under their real host names for a command that
// it starts, so that the command needs no change, with latency and faults that can be set while it runs.
//
// The program is flags, an environment and output around internal/emulator and internal/emulator/front; only main exits.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// streams are the program's standard ones, so that tests can give others.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// An exitError ends the program with a code and, if text is not empty, a message.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

func main() {
	os.Exit(run(context.Background(), os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

// run returns the exit code: 0; 1 for a failure; 2 for a wrong command line; with "run", the command's own.
func run(ctx context.Context, args []string, std streams) int {
	root := newRoot(std)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.text != "" {
			fmt.Fprintln(std.err, "keyvault-emulator:", exit.text)
		}
		return exit.code
	}
	fmt.Fprintln(std.err, "keyvault-emulator:", err)
	return 1
}

// usage makes a wrong command line exit with 2, and says where help is.
func usage(cmd *cobra.Command, err error) error {
	return &exitError{2, err.Error() + "\nrun '" + cmd.CommandPath() + " --help' for what it takes"}
}

func newRoot(std streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "keyvault-emulator",
		Short: "Azure Key Vault and Entra ID on this machine, for development and tests",
		Long: `keyvault-emulator is Azure Key Vault (secrets, keys, certificates; read and write) and the Entra ID
endpoints that give out tokens for it, on this machine and with no account.

Programs reach it under the real names, such as https://myvault.vault.azure.net, and need no change: 'run' starts
them with a proxy and a CA certificate in their environment. Tokens, client secrets, service account tokens and
rights are really checked. Latency, throttling and faults can be set while it runs, and requests are counted.

A seed file says what is in it; without one there is a small example ('keyvault-emulator seed' prints it).`,
		Example: `  # what a program sees of it
  keyvault-emulator run -- env

  # your own vault, and a program that uses it
  keyvault-emulator seed > seed.yaml
  keyvault-emulator run --seed seed.yaml -- my-program

  # inside of what 'run' started, or with the variables that 'serve' prints
  keyvault-emulator secret set myvault db-password --value new
  keyvault-emulator fault set throttle --kind vault --times 3 --retry-after 1
  keyvault-emulator latency vault=20ms token=80ms
  keyvault-emulator requests`,
		SilenceUsage: true, SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(cmd, fmt.Errorf("unknown command %q", args[0]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	root.SetFlagErrorFunc(usage)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newRun(std), newServe(std), newSeed(std), newSecret(std), newCertificate(std), newKey(std), newFault(std), newLatency(),
		newRequests(std), newToken(std))
	return root
}

// exactly is a check of the number of arguments that names them.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usage(cmd, fmt.Errorf("%s takes %d arguments %v, not %d", cmd.Name(), len(names), names, len(args)))
		}
		return nil
	}
}
