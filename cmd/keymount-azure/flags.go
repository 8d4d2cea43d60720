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

// maxShareReadsFor bounds --share-reads-for: a mount must not be served what a vault said long ago.
const maxShareReadsFor = time.Minute

// options are what the flags say.
type options struct {
	endpoint          string
	version           bool
	cloudName         string
	constructPEMChain bool
	separateFiles     bool
	shareReadsFor     time.Duration
	log               logging.Options
}

// parse reads the command line. One dash or two are the same, as with upstream, which uses the same package. Help goes to
// out and gives flag.ErrHelp.
func parse(args []string, out io.Writer) (*options, error) {
	opt := &options{}
	flags := flag.NewFlagSet("keymount-azure", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are returned, and printed once
	flags.StringVar(&opt.endpoint, "endpoint", "unix:///tmp/azure.sock", "where to serve: `unix:///path` or tcp://host:port")
	flags.BoolVar(&opt.version, "version", false, "print version and build date as JSON, and exit")
	flags.StringVar(&opt.cloudName, "cloud-name", "", "the `cloud` of classes that name none (default AzurePublicCloud)")
	flags.BoolVar(&opt.constructPEMChain, "construct-pem-chain", true,
		"order the certificates of a PFX: leaf, intermediates, root")
	flags.BoolVar(&opt.separateFiles, "write-cert-and-key-in-separate-files", false,
		"also write NAME.crt and NAME.key for a secret that is a certificate")
	flags.DurationVar(&opt.shareReadsFor, "share-reads-for", azure.DefaultShareFor,
		"a read that began up to this `time` before a mount may serve it, for the same identity only; 0s shares only reads in flight")
	opt.log.Register(flags)
	refused := ""
	for _, name := range later() {
		flags.Var(notYet{name, &refused}, name, "")
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		printHelp(out, flags)
		return nil, err
	case refused != "": // the package's own text speaks of a wrong value
		return nil, process.UsageError{Err: fmt.Errorf("--%s: this version does not have it; it comes with the whole provider", refused)}
	case err != nil:
		return nil, process.UsageError{Err: err}
	case opt.shareReadsFor < 0 || opt.shareReadsFor > maxShareReadsFor:
		return nil, process.UsageError{Err: fmt.Errorf("--share-reads-for %v: give a duration from 0s to %v", opt.shareReadsFor, maxShareReadsFor)}
	case flags.NArg() > 0:
		return nil, process.UsageError{Err: fmt.Errorf("unexpected argument %q: there are only flags", flags.Arg(0))}
	}
	return opt, nil
}

// later are upstream's flags that this program does not have yet.
func later() []string {
	return []string{
		"enable-pprof", "pprof-port", "healthz-port", "healthz-path", "healthz-timeout", "metrics-backend",
		"prometheus-port", "custom-user-agent", "token-proxy-url", "sni-name",
	}
}

// notYet refuses a flag rather than let it seem to work.
type notYet struct {
	name    string
	refused *string // set to name if the flag is given
}

func (notYet) String() string   { return "" }
func (notYet) IsBoolFlag() bool { return true } // so that no value is needed to be told
func (f notYet) Set(string) error {
	*f.refused = f.name
	return errors.New("not there yet")
}

func printHelp(out io.Writer, flags *flag.FlagSet) {
	fmt.Fprint(out, `keymount-azure serves the Azure Key Vault provider to the Secrets Store CSI Driver.

Usage: keymount-azure [flags]      (one dash or two)

`)
	var without []string
	flags.VisitAll(func(f *flag.Flag) {
		_, later := f.Value.(notYet)
		switch {
		case later:
		case logging.WithoutEffect(f):
			without = append(without, "--"+f.Name)
		default:
			name, usage := flag.UnquoteUsage(f)
			if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" {
				usage += fmt.Sprintf(" (default %s)", f.DefValue)
			}
			fmt.Fprintf(out, "  %-40s %s\n", strings.TrimSpace("--"+f.Name+" "+name), usage)
		}
	})
	fmt.Fprintf(out, "\nTaken for compatibility, without effect:\n  %s\n\nNot there yet:\n  --%s\n",
		strings.Join(without, " "), strings.Join(later(), " --"))
	fmt.Fprint(out, `
Environment: HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE, AZURE_ENVIRONMENT_FILEPATH, AZURE_AUTHORITY_HOST.
Exit codes: 0 stopped by a signal, 1 failed, 2 wrong command line.
`)
}
