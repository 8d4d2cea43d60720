package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"keymount/internal/emulator"
)

const vaultHelp = "\n\nVAULT is a vault's name, or its host name for a vault outside of the public cloud."

func newSecret(std streams) *cobra.Command {
	cmd := &cobra.Command{Use: "secret", Short: "Set, disable, enable or delete a secret of the running emulator"}
	cmd.AddCommand(newSecretSet(std), newState("secrets", "disable"), newState("secrets", "enable"), newDelete("secrets"))
	return cmd
}

func newSecretSet(std streams) *cobra.Command {
	var in emulator.SecretInput
	var file string
	cmd := &cobra.Command{
		Use:   "set VAULT NAME [--value TEXT | --value-file FILE]",
		Short: "Store a new version of a secret and print its id",
		Long: "set stores a new version of a secret and prints the version's id. Without --value and --value-file, the value is read from\n" +
			"standard input, to the last byte: 'printf' leaves no newline at the end where 'echo' does." + vaultHelp,
		Example: "  printf %s \"$PASSWORD\" | keyvault-emulator secret set myvault db-password",
		Args:    exactly("VAULT", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("value") {
				b, err := readValue(std.in, file)
				if err != nil {
					return err
				}
				in.Value = string(b)
			}
			var out struct {
				Version string `json:"version"`
			}
			if err := call(cmd.Context(), http.MethodPut, path("vaults", args[0], "secrets", args[1]), in, &out); err != nil {
				return err
			}
			fmt.Fprintln(std.out, out.Version)
			return nil
		},
	}
	cmd.Flags().StringVar(&in.Value, "value", "", "the value; other users of the machine can see it in the process list")
	cmd.Flags().StringVar(&file, "value-file", "", "a `file` that holds the value")
	cmd.Flags().StringVar(&in.ContentType, "content-type", "", "the secret's content type")
	cmd.Flags().StringToStringVar(&in.Tags, "tag", nil, "a tag, as in a=b; may be repeated")
	cmd.MarkFlagsMutuallyExclusive("value", "value-file")
	return cmd
}

// maxValue is more than a vault takes, in bytes: the emulator's own error then names the limit.
const maxValue = 512 << 10

func readValue(in io.Reader, file string) ([]byte, error) {
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("opening the value: %w", err)
		}
		defer f.Close()
		in = f
	} else if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return nil, errors.New("there is no value: pipe it in, or use --value-file or --value")
	}
	b, err := io.ReadAll(io.LimitReader(in, maxValue+1))
	if err != nil {
		return nil, fmt.Errorf("reading the value: %w", err)
	}
	if len(b) > maxValue {
		return nil, fmt.Errorf("the value is larger than %d bytes", maxValue)
	}
	return b, nil
}

func newState(kind, state string) *cobra.Command {
	var version string
	cmd := &cobra.Command{
		Use:   state + " VAULT NAME [--version ID]",
		Short: "Mark a version as " + state + "d",
		Long:  state + " changes a version, by default the newest. A disabled secret cannot be read, and the vault does not fall back to an older one." + vaultHelp,
		Args:  exactly("VAULT", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return call(cmd.Context(), http.MethodPost, path("vaults", args[0], kind, args[1], state)+"?version="+url.QueryEscape(version), nil, nil)
		},
	}
	cmd.Flags().StringVar(&version, "version", "", "the version's id (default: the newest)")
	return cmd
}

func newDelete(kind string) *cobra.Command {
	return &cobra.Command{
		Use:   "delete VAULT NAME",
		Short: "Delete it; it can be recovered, and its name cannot be used again until it is purged",
		Args:  exactly("VAULT", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return call(cmd.Context(), http.MethodDelete, path("vaults", args[0], kind, args[1]), nil, nil)
		},
	}
}

func newRotate(std streams, kind string) *cobra.Command {
	return &cobra.Command{
		Use:   "rotate VAULT NAME",
		Short: "Make a new version with a new key and print its id",
		Args:  exactly("VAULT", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out struct {
				Version string `json:"version"`
			}
			if err := call(cmd.Context(), http.MethodPost, path("vaults", args[0], kind, args[1], "rotate"), nil, &out); err != nil {
				return err
			}
			fmt.Fprintln(std.out, out.Version)
			return nil
		},
	}
}

func newCertificate(std streams) *cobra.Command {
	cmd := &cobra.Command{Use: "certificate", Short: "Rotate, disable, enable or delete a certificate, with its secret and key"}
	cmd.AddCommand(newRotate(std, "certificates"), newState("certificates", "disable"), newState("certificates", "enable"), newDelete("certificates"))
	return cmd
}

func newKey(std streams) *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Rotate, disable, enable or delete a key of the running emulator"}
	cmd.AddCommand(newRotate(std, "keys"), newState("keys", "disable"), newState("keys", "enable"), newDelete("keys"))
	return cmd
}
