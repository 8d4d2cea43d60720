// Package cli is the keymount program: what people type. Each command reads its flags into options, runs, and says in one
// place how it ended.
//
// It works without Kubernetes, through the same internal/publish as the node daemon, and must not import the daemon or the
// emulator. Nothing here exits the process; Run returns the exit code. Contents of files and credentials are never printed,
// and what comes from a manifest, a vault or a provider is printed without control characters.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keymount/internal/process"
	"keymount/internal/provider"
)

// Exit codes. Of several failures the one that a retry helps least decides.
const (
	ExitOK          = 0
	ExitFailed      = 1   // anything without a code of its own
	ExitInvalid     = 2   // the command line or the class cannot work until it is changed
	ExitNotFound    = 3   // an object, a version or the vault does not exist
	ExitDenied      = 4   // the identity may not read, or could not prove itself
	ExitUnavailable = 5   // throttled, unreachable or too slow: the same command may work later
	ExitInterrupted = 130 // SIGINT or SIGTERM before there was a result
)

const exitCodeHelp = `Exit codes:
  0    done; with --watch: ended by SIGINT or SIGTERM
  1    failed in another way than those below (for example writing to the folder)
  2    the command line or the class is not valid
  3    an object, a version or the vault was not found
  4    access denied, or the identity could not prove itself
  5    throttled, unreachable or too slow: try again later
  130  interrupted`

// An Env is the world outside: streams, environment, and the program's version.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Version  string
}

// Run runs one command line and returns its exit code. ctx ends on the signals that mean stop.
func Run(ctx context.Context, env Env, args []string) int {
	if err := process.Harden(); err != nil {
		fmt.Fprintf(env.Err, "keymount: error: %s\n", printable(err.Error()))
		return ExitFailed
	}
	root := rootCommand(env)
	root.SetArgs(args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	var shown *reported
	if errors.As(err, &shown) {
		return shown.code
	}
	fmt.Fprintf(env.Err, "keymount: error: %s\n", printable(err.Error()))
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(env.Err, "keymount: hint: %s\n", usage.hint)
		return ExitInvalid
	}
	return exitCode(ctx, err)
}

// exitCode maps an error to the code that scripts see.
func exitCode(ctx context.Context, err error) int {
	if ctx.Err() != nil {
		return ExitInterrupted
	}
	switch provider.KindOf(err) {
	case provider.Invalid:
		return ExitInvalid
	case provider.NotFound:
		return ExitNotFound
	case provider.Denied:
		return ExitDenied
	case provider.Throttled, provider.Unavailable:
		return ExitUnavailable
	}
	return ExitFailed
}

// reported is an error that the user has been told of already.
type reported struct{ code int }

func (r *reported) Error() string { return fmt.Sprintf("exit code %d", r.code) }

// usageError is a command line that cannot work.
type usageError struct{ message, hint string }

func (e *usageError) Error() string { return e.message }

func rootCommand(env Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "keymount",
		Short: "Secrets, keys and certificates from Azure Key Vault as files",
		Long: `keymount puts secrets, keys and certificates from Azure Key Vault into files, from the
SecretProviderClass manifests that Kubernetes clusters use. It needs no cluster: use it on a
development machine, a VM or in a CI job.`,
		Example: `  # write what a class names into ./secrets, as the developer who ran "az login"
  keymount mount -f class.yaml --identity default ./secrets

  # keep it fresh until Ctrl-C
  keymount mount -f class.yaml --identity default --watch ./secrets`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       env.Version,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SuggestionsMinimumDistance = 2
	root.SetVersionTemplate("keymount {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err.Error(), fmt.Sprintf("%q lists the flags", cmd.CommandPath()+" --help")}
	})
	root.AddCommand(mountCommand(env), versionCommand(env))
	return root
}

func versionCommand(env Env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  usageArgs(cobra.NoArgs, "keymount version"),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(env.Out, "keymount %s\n", env.Version)
			return err
		},
	}
}

// unknownCommand refuses what is no command, and names the one that was probably meant.
func unknownCommand(cmd *cobra.Command, args []string) error {
	err := usageArgs(cobra.NoArgs, "keymount")(cmd, args)
	var usage *usageError
	if errors.As(err, &usage) {
		if meant := cmd.SuggestionsFor(args[0]); len(meant) > 0 {
			usage.hint = fmt.Sprintf("did you mean %q?", meant[0])
		}
	}
	return err
}

// usageArgs makes a failed check of the arguments a usage error.
func usageArgs(check cobra.PositionalArgs, path string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{err.Error(), fmt.Sprintf("%q shows how it is used", path+" --help")}
		}
		return nil
	}
}
