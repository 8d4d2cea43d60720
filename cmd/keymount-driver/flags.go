package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"keymount/internal/daemon"
	"keymount/internal/logging"
	"keymount/internal/process"
)

// options are what the command line says.
type options struct {
	version bool
	log     logging.Options
	config  daemon.Config
}

// raw are the flags that become something else in daemon.Config, and the environment of the built-in providers.
type raw struct {
	providerVolume      string
	additionalVolumes   string
	builtinProviders    string
	audiences           audiences
	annotations         string
	healthCheck         bool
	healthCheckInterval time.Duration
	metricsBackend      string
	pprof               bool
	pprofPort           int
	registration        daemon.RegistrationConfig
	azure               daemon.AzureConfig
	given               map[string]bool // names of flags on the command line
}

// parse reads the command line. One dash or two are the same, as with upstream, which uses the same package. Help goes to
// out and gives flag.ErrHelp. All that is wrong comes at once, but for what the flag package finds.
func parse(args []string, getenv func(string) string, out io.Writer) (*options, error) {
	opt := &options{config: daemon.DefaultConfig()}
	in := &raw{azure: daemon.DefaultAzureConfig(), given: map[string]bool{}}
	flags := flag.NewFlagSet("keymount-driver", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are returned, and printed once
	groups := register(flags, opt, in)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		printHelp(out, flags, groups)
		return nil, err
	case err != nil:
		return nil, process.UsageError{Err: explain(flags, err)}
	}
	flags.Visit(func(f *flag.Flag) { in.given[f.Name] = true })
	in.azure.CloudFile = getenv("AZURE_ENVIRONMENT_FILEPATH")
	in.azure.AuthorityHost = getenv("AZURE_AUTHORITY_HOST")
	if err := check(flags, &opt.config, in); err != nil {
		return nil, process.UsageError{Err: err}
	}
	return opt, nil
}

// explain adds what a duration looks like to the flag package's "parse error": who gives none, gives seconds.
func explain(flags *flag.FlagSet, err error) error {
	flags.VisitAll(func(f *flag.Flag) {
		if kind, _ := flag.UnquoteUsage(f); kind == "time" && strings.Contains(err.Error(), " for flag -"+f.Name+": ") {
			err = fmt.Errorf("%w (give a time with its unit, such as 2m)", err)
		}
	})
	return err
}

// A group is flags that belong together in help.
type group struct {
	title string
	names []string
}

// register adds the flags, group by group, in the order in which help shows them.
func register(flags *flag.FlagSet, opt *options, in *raw) []group {
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
	cfg := &opt.config
	add("Driver", func() { driverFlags(flags, cfg) })
	add("Providers", func() { providerFlags(flags, cfg, in) })
	add("Rotation", func() { rotationFlags(flags, cfg) })
	add("In place of the registrar and the liveness probe", func() { kubeletFlags(flags, cfg, in) })
	add("Azure Key Vault, with --builtin-providers=azure", func() { azureFlags(flags, in) })
	add("Metrics and profiles", func() { metricsFlags(flags, cfg, in) })
	add("Logs and help", func() {
		opt.log.Register(flags)
		flags.BoolVar(&opt.version, "version", false, "print version, commit and build date as JSON, and exit")
	})
	return groups
}

func driverFlags(flags *flag.FlagSet, cfg *daemon.Config) {
	flags.TextVar(&cfg.Endpoint, "endpoint", cfg.Endpoint, "where to serve CSI: `unix:///path` or tcp://host:port")
	flags.StringVar(&cfg.DriverName, "drivername", cfg.DriverName, "`name` of the CSI driver")
	flags.StringVar(&cfg.NodeName, "nodeid", "", "`name` of this node, without which kubelet registers no driver")
	flags.StringVar(&cfg.StateDir, "state-dir", "", "`folder` for the lock and what is known of volumes (default the folder of the CSI socket)")
	flags.StringVar(&cfg.Kubeconfig, "kubeconfig", "", "`file` that says where the API server is (default $KUBECONFIG, else the pod's own)")
	flags.BoolVar(&cfg.MountNoexec, "mount-noexec", false, "mount volumes so that nothing in them can be run")
	flags.IntVar(&cfg.Providers.MaxAnswer, "max-call-recv-msg-size", cfg.Providers.MaxAnswer, "size of the largest answer of a provider, in `bytes`")
}

func providerFlags(flags *flag.FlagSet, cfg *daemon.Config, in *raw) {
	last := len(cfg.Providers.Folders) - 1
	flags.StringVar(&in.providerVolume, "provider-volume", cfg.Providers.Folders[last], "`folder` of the providers' sockets")
	flags.StringVar(&in.additionalVolumes, "additional-provider-volume-paths", strings.Join(cfg.Providers.Folders[:last], ","),
		"`folders`, with commas, where sockets are looked for before --provider-volume")
	flags.StringVar(&in.builtinProviders, "builtin-providers", "", "providers to have in this process, without a socket: `azure`")
	flags.Var(&in.audiences, "provider-audiences",
		"give a provider the tokens for these audiences only: `provider=audience,...`; \"\" is the API server's own; for several providers repeat the flag (default all tokens)")
	flags.StringVar(&in.annotations, "service-account-annotations", "",
		"tell providers these annotations of a pod's service account: `keys`, with commas")
	flags.BoolVar(&in.healthCheck, "provider-health-check", false, "ask the providers now and then whether they live")
	flags.DurationVar(&in.healthCheckInterval, "provider-health-check-interval", 2*time.Minute, "`time` between two health checks")
}

func rotationFlags(flags *flag.FlagSet, cfg *daemon.Config) {
	flags.BoolVar(&cfg.Rotation.Enabled, "enable-secret-rotation", false, "fetch the content of volumes again")
	flags.DurationVar(&cfg.Rotation.Interval, "rotation-poll-interval", cfg.Rotation.Interval, "`time` from one fetch to the next; 0: fetch at every republish")
	flags.DurationVar(&cfg.Rotation.MinInterval, "min-rotation-poll-interval", cfg.Rotation.MinInterval,
		"shortest `time` that a class may ask for by annotation")
}

func kubeletFlags(flags *flag.FlagSet, cfg *daemon.Config, in *raw) {
	flags.StringVar(&in.registration.Dir, "registration-dir", "",
		"register with kubelet here: its plugins_registry `folder`, as mounted in this container (default leave it to a registrar)")
	flags.StringVar(&in.registration.KubeletPath, "kubelet-registration-path", "",
		"`path` of the CSI socket on the node, which kubelet is told with --registration-dir")
	flags.StringVar(&cfg.HealthAddr, "health-addr", "", "serve /healthz and /readyz at `host:port` (default off)")
}

func azureFlags(flags *flag.FlagSet, in *raw) {
	flags.StringVar(&in.azure.CloudName, "cloud-name", "", "the `cloud` of classes that name none (default AzurePublicCloud)")
	flags.BoolVar(&in.azure.ConstructPEMChain, "construct-pem-chain", in.azure.ConstructPEMChain,
		"order the certificates of a PFX: leaf, intermediates, root")
	flags.BoolVar(&in.azure.WriteCertAndKeyInSeparateFiles, "write-cert-and-key-in-separate-files", false,
		"also write NAME.crt and NAME.key for a secret that is a certificate")
	flags.DurationVar(&in.azure.ShareReadsFor, "share-reads-for", in.azure.ShareReadsFor,
		"a read that began up to this `time` before a mount may serve it, for the same identity only; 0s shares only reads in flight")
}

func metricsFlags(flags *flag.FlagSet, cfg *daemon.Config, in *raw) {
	flags.StringVar(&cfg.MetricsAddr, "metrics-addr", cfg.MetricsAddr, "serve /metrics at `host:port`; 0 switches them off")
	flags.StringVar(&in.metricsBackend, "metrics-backend", "Prometheus", "`kind` of metrics; there is one")
	flags.BoolVar(&in.pprof, "enable-pprof", false, "serve profiles of this process, on the loopback interface (kubectl port-forward reaches it)")
	flags.IntVar(&in.pprofPort, "pprof-port", 6065, "`port` for them")
}
