package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
)

func newRun(std streams) *cobra.Command {
	var seed string
	cmd := &cobra.Command{
		Use:                   "run [--seed FILE] -- COMMAND [ARGUMENT...]",
		DisableFlagsInUseLine: true, // they go before the command
		Short:                 "Run a command that sees the emulator in place of Azure",
		Long: `run starts an emulator and then COMMAND, with these variables in its environment:

  HTTPS_PROXY       leads requests for the emulator's hosts there, and refuses all others
  NO_PROXY          is emptied, so that no host goes around it
  SSL_CERT_FILE     the certificate of the emulator's own CA; CURL_CA_BUNDLE, REQUESTS_CA_BUNDLE and
                    NODE_EXTRA_CA_CERTS name it too
  ` + adminVariable + ` and ` + secretVariable + `
                    let the other commands of keyvault-emulator control it

Signals are passed on, and the exit code is COMMAND's (128 + the signal's number if one ended it). When COMMAND has
ended, the emulator and its files are gone.`,
		Example: `  keyvault-emulator run --seed seed.yaml -- sh -c 'my-program & sleep 5; keyvault-emulator secret set myvault a --value b; wait'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(cmd, errors.New("there is no command: put one after --, as in 'keyvault-emulator run -- env'"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := startHost(seed)
			if err != nil {
				return err
			}
			defer h.stop()
			return runChild(cmd.Context(), h.env(), args, std)
		},
	}
	cmd.Flags().StringVar(&seed, "seed", "", "seed `file` (default: the example that 'keyvault-emulator seed' prints)")
	cmd.Flags().SetInterspersed(false) // what follows COMMAND is its own
	return cmd
}

// runChild runs the command to its end, with the environment added to this process's.
func runChild(ctx context.Context, env, args []string, std streams) error {
	child := exec.CommandContext(ctx, args[0], args[1:]...)
	child.Stdin, child.Stdout, child.Stderr = std.in, std.out, std.err
	child.Env = append(os.Environ(), env...)
	caught := make(chan os.Signal, 8)
	signal.Notify(caught, passedOn()...)
	defer signal.Stop(caught)
	if err := child.Start(); err != nil {
		code := 126 // as shells do: found but not started
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			code = 127
		}
		return &exitError{code, fmt.Sprintf("starting %s: %v", args[0], err)}
	}
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-caught:
				if !terminalSends(sig) {
					_ = child.Process.Signal(sig) // an error means that the child has just ended
				}
			case <-ended:
				return
			}
		}
	}()
	err := child.Wait()
	close(ended)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return &exitError{code: exitCode(exit.ProcessState)}
	}
	return fmt.Errorf("running %s: %w", args[0], err)
}

func newServe(std streams) *cobra.Command {
	var seed string
	cmd := &cobra.Command{
		Use:   "serve [--seed FILE]",
		Short: "Run an emulator until interrupted, and print how to use it",
		Long: `serve starts an emulator and prints the variables with which programs of other terminals reach and control it,
in a form for the shell. It ends with Ctrl-C.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := startHost(seed)
			if err != nil {
				return err
			}
			defer h.stop()
			ctx, stop := signal.NotifyContext(cmd.Context(), passedOn()...)
			defer stop()
			fmt.Fprintln(std.out, "# The emulator runs. In another terminal:")
			for _, v := range h.env() {
				name, value, _ := strings.Cut(v, "=")
				fmt.Fprintf(std.out, "export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
			}
			fmt.Fprintln(std.out, "# It answers for:")
			for _, name := range h.server.Hosts() {
				fmt.Fprintln(std.out, "#   https://"+name)
			}
			fmt.Fprintln(std.out, "# Press Ctrl-C to end it.")
			<-ctx.Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&seed, "seed", "", "seed `file` (default: the example that 'keyvault-emulator seed' prints)")
	return cmd
}
