package main

import (
	"flag"
	"fmt"
	"io"
	"strings"

	"keymount/internal/logging"
)

func printHelp(out io.Writer, flags *flag.FlagSet, groups []group) {
	fmt.Fprint(out, `keymount-driver serves the volumes of the Secrets Store CSI Driver on one node.

Usage: keymount-driver [flags]      (one dash or two)
`)
	var without []string
	for _, g := range groups {
		fmt.Fprintf(out, "\n%s:\n", g.title)
		for _, name := range g.names {
			f := flags.Lookup(name)
			if logging.WithoutEffect(f) {
				without = append(without, "--"+f.Name)
				continue
			}
			value, usage := flag.UnquoteUsage(f)
			if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" {
				usage += fmt.Sprintf(" (default %s)", f.DefValue)
			}
			fmt.Fprintf(out, "  %-52s %s\n", strings.TrimSpace("--"+f.Name+" "+value), usage)
		}
	}
	fmt.Fprintf(out, "\nTaken for compatibility, without effect:\n  %s\n", strings.Join(without, " "))
	fmt.Fprint(out, `
With the arguments of the upstream driver it does what that does, beside its registrar and its liveness probe. To do without
the two, give --registration-dir, --kubelet-registration-path and --health-addr.

Environment: KUBECONFIG, and for the built-in Azure provider HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE,
AZURE_ENVIRONMENT_FILEPATH, AZURE_AUTHORITY_HOST.
Exit codes: 0 stopped by a signal, 1 failed, 2 wrong command line.
`)
}
