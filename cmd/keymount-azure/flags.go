package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"keymount/internal/azure"
	"keymount/internal/logging"
	"keymount/internal/process"
)

// options are what the flags say.
type options struct {
	endpoint          string
	version           bool
	cloudName         string
	constructPEMChain bool
	separateFiles     bool
	shareReadsFor     time.Duration
	userAgent         string
	health            healthOptions
	metrics           metricsOptions
	waiting           []string // flags that were given and wait for identity bindings
	log               logging.Options
}

type healthOptions struct {
	port    int
	path    string
	timeout time.Duration
}

type metricsOptions struct {
	backend   string
	port      int
	pprof     bool
	pprofPort int
}

// parse reads the command line. One dash or two are the same, as with upstream, which uses the same package. Help goes to
// out and gives flag.ErrHelp.
func parse(args []string, out io.Writer) (*options, error) {
	opt := &options{}
	flags := flag.NewFlagSet("keymount-azure", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are returned, and printed once
	groups := register(flags, opt)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		printHelp(out, flags, groups)
		return nil, err
	case err != nil:
		return nil, process.UsageError{Err: err}
	}
	flags.Visit(func(f *flag.Flag) {
		if waits(f.Name) && f.Value.String() != "" {
			opt.waiting = append(opt.waiting, "--"+f.Name)
		}
	})
	if err := check(flags, opt); err != nil {
		return nil, process.UsageError{Err: err}
	}
	return opt, nil
}

// waits says of which flags the meaning is not there yet. They are taken, since existing manifests give them.
func waits(name string) bool { return name == "token-proxy-url" || name == "sni-name" }

// A group is flags that belong together in help.
type group struct {
	title string
	names []string
}

// register adds the flags, group by group, in the order in which help shows them.
func register(flags *flag.FlagSet, opt *options) []group {
	var groups []group
	seen := map[string]bool{}
	add := func(title string, register func()) {
		register()
		g := group{title: title}
		flags.VisitAll(func(f *flag.Flag) {
			if !seen[f.Name] {
				seen[f.Name] = true
				g.names = append(g.names, f.Name)
			}
		})
		groups = append(groups, g)
	}
	add("Provider", func() { providerFlags(flags, opt) })
	add("Health", func() { healthFlags(flags, &opt.health) })
	add("Metrics and profiles", func() { metricsFlags(flags, &opt.metrics) })
	add("Logs and help", func() {
		opt.log.Register(flags)
		flags.BoolVar(&opt.version, "version", false, "print version and build date as JSON, and exit")
	})
	add("Taken, and named in a warning: identity bindings are not there yet", func() {
		flags.String("token-proxy-url", "", "`address` of their token proxy")
		flags.String("sni-name", "", "`name` of its TLS server")
	})
	return groups
}

func providerFlags(flags *flag.FlagSet, opt *options) {
	flags.StringVar(&opt.endpoint, "endpoint", "unix:///tmp/azure.sock", "where to serve: `unix:///path` or tcp://host:port")
	flags.StringVar(&opt.cloudName, "cloud-name", "", "the `cloud` of classes that name none (default AzurePublicCloud)")
	flags.BoolVar(&opt.constructPEMChain, "construct-pem-chain", true,
		"order the certificates of a PFX: leaf, intermediates, root")
	flags.BoolVar(&opt.separateFiles, "write-cert-and-key-in-separate-files", false,
		"also write NAME.crt and NAME.key for a secret that is a certificate")
	flags.DurationVar(&opt.shareReadsFor, "share-reads-for", azure.DefaultShareFor,
		"a read that began up to this `time` before a mount may serve it, for the same identity only; 0s shares only reads in flight")
	flags.StringVar(&opt.userAgent, "custom-user-agent", "", "`words` to add to the user agent of requests to vaults and Entra ID")
}

func healthFlags(flags *flag.FlagSet, h *healthOptions) {
	flags.IntVar(&h.port, "healthz-port", 8989, "`port`, on all interfaces, of liveness and /readyz; 0 switches them off")
	flags.StringVar(&h.path, "healthz-path", "/healthz", "`path` of liveness: whether the provider answers on its own socket")
	flags.DurationVar(&h.timeout, "healthz-timeout", 5*time.Second, "`time` that it may take to do so")
}

func metricsFlags(flags *flag.FlagSet, m *metricsOptions) {
	flags.StringVar(&m.backend, "metrics-backend", backend, "`kind` of metrics; there is one")
	flags.IntVar(&m.port, "prometheus-port", 8898, "`port`, on all interfaces, of /metrics; 0 switches them off")
	flags.BoolVar(&m.pprof, "enable-pprof", false, "serve profiles of this process, on the loopback interface (kubectl port-forward reaches it)")
	flags.IntVar(&m.pprofPort, "pprof-port", 6060, "`port` for them")
}

func printHelp(out io.Writer, flags *flag.FlagSet, groups []group) {
	fmt.Fprint(out, `keymount-azure serves the Azure Key Vault provider to the Secrets Store CSI Driver.

Usage: keymount-azure [flags]      (one dash or two)
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
			fmt.Fprintf(out, "  %-40s %s\n", strings.TrimSpace("--"+f.Name+" "+value), usage)
		}
	}
	fmt.Fprintf(out, "\nTaken for compatibility, without effect:\n  %s\n", strings.Join(without, " "))
	fmt.Fprint(out, `
Environment: HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE, AZURE_ENVIRONMENT_FILEPATH, AZURE_AUTHORITY_HOST.
Exit codes: 0 stopped by a signal, 1 failed, 2 wrong command line.
`)
}
