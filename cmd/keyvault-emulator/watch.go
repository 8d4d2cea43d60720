package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"keymount/internal/emulator"
)

func newFault(std streams) *cobra.Command {
	cmd := &cobra.Command{Use: "fault", Short: "Set, list or clear faults of the running emulator"}
	cmd.AddCommand(newFaultSet(std), newFaultList(std), newFaultClear())
	return cmd
}

func newFaultSet(std streams) *cobra.Command {
	var f emulator.Fault
	cmd := &cobra.Command{
		Use:   "set FAULT [flags]",
		Short: "Disturb requests, and print the fault's number",
		Long: `set disturbs the requests that match --kind, --host and --path, until it is cleared or has hit --times requests.

  throttle        429, with --retry-after if given         rate            429 for what exceeds --per-second
  status          the answer --status, as in 503           html            an HTML error page
  hang            no answer until cleared                  cut             close the connection
  slow            --chunk bytes at a time, then --pause    oversize        --size bytes of padding in the answer
  types           numbers for strings and the reverse      missing         the answer without the member --member
  unauthorized    401 for a good token (AKV10046)          bare-challenge  401 whose challenge names no tenant
  forbidden       403 of a role that is not there yet      firewall        403 of the vault's firewall
  empty-page      an empty page that goes on               endless-pages   pages that link to themselves
  foreign-link    a next page on --other-host              body            --body as it is, with --status or 200

Kinds: secret-get, key-get, certificate-get, list, versions, write, challenge, vault-other, token, openid,
instance-discovery, jwks, issuer; groups of them: vault, token, discovery.`,
		Example: `  keyvault-emulator fault set throttle --kind secret-get --times 2 --retry-after 1
  keyvault-emulator fault set status --status 503 --kind token
  keyvault-emulator fault set hang --host myvault.vault.azure.net`,
		Args: exactly("FAULT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.Do = args[0]
			var out struct {
				ID int `json:"id"`
			}
			if err := call(cmd.Context(), http.MethodPost, path("faults"), f, &out); err != nil {
				return err
			}
			fmt.Fprintln(std.out, out.ID)
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.Kind, "kind", "", "only requests of this kind or group")
	fl.StringVar(&f.Host, "host", "", "only requests to this host")
	fl.StringVar(&f.Path, "path", "", "only requests whose path begins so, as in /secrets/db-password")
	fl.IntVar(&f.Skip, "skip", 0, "let so many requests through first")
	fl.IntVar(&f.Times, "times", 0, "hit so many requests (default: all, until cleared)")
	fl.IntVar(&f.Status, "status", 0, "HTTP status")
	fl.StringVar(&f.RetryAfter, "retry-after", "", "the header Retry-After: seconds or an HTTP date")
	fl.IntVar(&f.PerSecond, "per-second", 0, "for rate")
	fl.IntVar(&f.Chunk, "chunk", 0, "for slow: bytes (default 16)")
	fl.DurationVar(&f.Pause, "pause", 0, "for slow, as in 100ms")
	fl.IntVar(&f.Size, "size", 0, "for oversize: bytes (default 2 MiB)")
	fl.StringVar(&f.Member, "member", "", "for missing, as in value")
	fl.StringVar(&f.Body, "body", "", "for status and body")
	fl.StringVar(&f.Host2, "other-host", "", "for foreign-link")
	return cmd
}

func newFaultList(std streams) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Print the faults that are set, one JSON object a line",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out []json.RawMessage
			if err := call(cmd.Context(), http.MethodGet, path("faults"), nil, &out); err != nil {
				return err
			}
			for _, f := range out {
				fmt.Fprintln(std.out, string(f))
			}
			return nil
		},
	}
}

func newFaultClear() *cobra.Command {
	return &cobra.Command{
		Use:   "clear NUMBER|all",
		Short: "Clear a fault; requests that hang by it are answered",
		Args:  exactly("NUMBER|all"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return call(cmd.Context(), http.MethodDelete, path("faults", args[0]), nil, nil)
		},
	}
}

func newLatency() *cobra.Command {
	return &cobra.Command{
		Use:     "latency GROUP=DURATION...",
		Short:   "Make answers take at least so long; groups are vault, token and discovery",
		Example: "  keyvault-emulator latency vault=20ms token=80ms discovery=30ms",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(cmd, errors.New("there is nothing to set: say vault=20ms"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, a := range args {
				group, text, ok := strings.Cut(a, "=")
				if !ok {
					return usage(cmd, fmt.Errorf("%q is not of the form vault=20ms", a))
				}
				if err := call(cmd.Context(), http.MethodPut, path("latency", group), map[string]string{"latency": text}, nil); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newRequests(std streams) *cobra.Command {
	var asJSON, withLog, reset bool
	cmd := &cobra.Command{
		Use:   "requests [--log] [--json] [--reset]",
		Short: "Print how many requests there were, by kind",
		Long: `requests prints how many requests of each kind the emulator has seen. A request to a vault without a token is of the
kind "challenge", whatever it asks for. --log adds the last 10,000 requests, without headers and bodies.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out emulator.RequestReport
			url := path("requests")
			if withLog {
				url += "?log=true"
			}
			if err := call(cmd.Context(), http.MethodGet, url, nil, &out); err != nil {
				return err
			}
			if err := printRequests(std, out, asJSON); err != nil {
				return err
			}
			if reset {
				return call(cmd.Context(), http.MethodDelete, path("requests"), nil, nil)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&withLog, "log", false, "print each request too")
	cmd.Flags().BoolVar(&reset, "reset", false, "begin counting at zero afterwards")
	return cmd
}

func printRequests(std streams, r emulator.RequestReport, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(std.out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	for _, e := range r.Log {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s %s%s\n", e.Time.UTC().Format("15:04:05.000"), e.Status, e.Kind, e.Method, e.Host, e.Path)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Counts)) {
		fmt.Fprintf(w, "%s\t%d\n", k, r.Counts[k])
	}
	fmt.Fprintf(w, "total\t%d\n", r.Total)
	return w.Flush()
}

func newToken(std streams) *cobra.Command {
	var in emulator.TokenInput
	cmd := &cobra.Command{
		Use:   "token FILE --namespace NAMESPACE --service-account NAME",
		Short: "Write a service account token of the emulated cluster to a file, for workload identity",
		Long: `token signs a token as a Kubernetes API server would for a pod of the emulated cluster, and writes it to FILE (mode 0600). An application
of the seed whose federated credential names the issuer and system:serviceaccount:NAMESPACE:NAME takes it.`,
		Example: `  keyvault-emulator token "$AZURE_FEDERATED_TOKEN_FILE" --namespace default --service-account demo`,
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if in.Namespace == "" || in.ServiceAccount == "" {
				return usage(cmd, errors.New("--namespace and --service-account are needed"))
			}
			var out struct {
				Token string `json:"token"`
			}
			if err := call(cmd.Context(), http.MethodPost, path("tokens"), in, &out); err != nil {
				return err
			}
			if err := os.WriteFile(args[0], []byte(out.Token), 0o600); err != nil {
				return fmt.Errorf("writing the token: %w", err)
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&in.Namespace, "namespace", "", "the pod's namespace")
	fl.StringVar(&in.ServiceAccount, "service-account", "", "the pod's service account")
	fl.StringVar(&in.Pod, "pod", "", "the pod's name, if the token is bound to one")
	fl.StringVar(&in.PodUID, "pod-uid", "", "the pod's uid")
	fl.StringVar(&in.Audience, "audience", "", "the audience (default api://AzureADTokenExchange)")
	fl.StringVar(&in.Lifetime, "lifetime", "", "as in 10m (default 1h); less than zero makes an expired token")
	fl.StringVar(&in.Issuer, "issuer", "", "the issuer's URL, if the seed has more than one")
	return cmd
}
