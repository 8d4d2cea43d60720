package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"

	"keymount/internal/emulator/front"
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
			h, err := startHost(hostOptions{seedFile: seed})
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
	var opt hostOptions
	cmd := &cobra.Command{
		Use:   "serve [--seed FILE] [--listen ADDRESS] [--ca-file FILE]",
		Short: "Run an emulator until interrupted, and print how to use it",
		Long: `serve starts an emulator and prints the variables with which programs of other terminals reach and control it,
in a form for the shell. It ends with Ctrl-C.

With --listen, clients of a network reach it too, such as the pods of a test cluster: under the real host names, which
their DNS or hosts file has to lead to that address, and with no proxy. Then only the variables for control are printed,
so that the terminal's other programs go on as they were. Clients trust the certificate in --ca-file; the file is there while
the emulator runs, and no longer. Control stays on the loopback interface.`,
		Example: `  keyvault-emulator serve --seed seed.yaml --listen 10.200.0.1:443 --ca-file ca.pem
  kubectl create configmap emulator-ca --from-file=ca.pem`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opt.listen != "" {
				if err := front.CheckAddress(opt.listen); err != nil {
					return usage(cmd, fmt.Errorf("--listen: %w", err))
				}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), passedOn()...)
			defer stop()
			h, err := startHost(opt)
			if err != nil {
				return err
			}
			defer h.stop()
			h.describe(std.out, opt.listen)
			<-ctx.Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&opt.seedFile, "seed", "", "seed `file` (default: the example that 'keyvault-emulator seed' prints)")
	cmd.Flags().StringVar(&opt.listen, "listen", "", "IP `address` and port of this machine that clients reach, as in 10.200.0.1:443 (default: a port of 127.0.0.1)")
	cmd.Flags().StringVar(&opt.caFile, "ca-file", "", "`file` to write the CA certificate to; it must not exist (default: one in a temporary folder)")
	return cmd
}

// describe prints how to use a running emulator, as text that a shell takes.
func (h *host) describe(out io.Writer, listen string) {
	fmt.Fprintln(out, "# The emulator runs. In another terminal:")
	variables := h.env()
	if listen != "" {
		variables = h.control()
	}
	for _, v := range variables {
		name, value, _ := strings.Cut(v, "=")
		fmt.Fprintf(out, "export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	if listen == "" {
		fmt.Fprintln(out, "# It answers for:")
		for _, name := range h.server.Hosts() {
			fmt.Fprintln(out, "#   https://"+name)
		}
	} else {
		address, port, _ := net.SplitHostPort(h.front.Addr()) // a listener's, so it splits
		fmt.Fprintf(out, "# Clients connect to port %s (they try 443), trust %s, and need these lines in their hosts file or DNS:\n", port, h.ca)
		for _, name := range h.server.Hosts() {
			fmt.Fprintln(out, "#   "+address+" "+name)
		}
	}
	fmt.Fprintln(out, "# Press Ctrl-C to end it.")
}
