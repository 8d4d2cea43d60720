package main

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"keymount/internal/providerd"
)

const (
	// maxShareReadsFor bounds --share-reads-for: a mount must not be served what a vault said long ago.
	maxShareReadsFor = time.Minute
	// maxHealthTimeout bounds --healthz-timeout: nobody waits longer for a probe.
	maxHealthTimeout = 5 * time.Minute
	// maxUserAgent bounds --custom-user-agent, which goes into every request.
	maxUserAgent = 256
	// maxHealthPath bounds --healthz-path.
	maxHealthPath = 256

	backend = "Prometheus"
)

// bad names the flag, its value and what to do.
func bad(name string, value any, remedy string, args ...any) error {
	return fmt.Errorf("--%s=%v: %s", name, value, fmt.Sprintf(remedy, args...))
}

// check returns everything on the command line that makes no sense.
func check(flags *flag.FlagSet, opt *options) error {
	var errs []error
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q: there are only flags", flags.Arg(0)))
	}
	if opt.shareReadsFor < 0 || opt.shareReadsFor > maxShareReadsFor {
		errs = append(errs, bad("share-reads-for", opt.shareReadsFor, "give a duration from 0s to %v", maxShareReadsFor))
	}
	if !isHeader(opt.userAgent) {
		errs = append(errs, fmt.Errorf("--custom-user-agent=%.64q: give at most %d letters, digits, spaces and other printable ASCII characters",
			opt.userAgent, maxUserAgent))
	}
	return errors.Join(append(errs, checkHealth(opt.health), checkMetrics(opt.metrics))...)
}

// isHeader says whether a text may become part of a header: a line break would add headers of its own.
func isHeader(text string) bool {
	odd := func(c rune) bool { return c < ' ' || c > '~' }
	return len(text) <= maxUserAgent && !strings.ContainsFunc(text, odd)
}

func checkHealth(h healthOptions) error {
	var errs []error
	if h.port < 0 || h.port > 65535 {
		errs = append(errs, bad("healthz-port", h.port, "give a port from 1 to 65535, or 0 for none"))
	}
	odd := func(c rune) bool { return c <= ' ' || c > '~' || c == '?' || c == '#' || c == '%' }
	switch {
	case !strings.HasPrefix(h.path, "/") || len(h.path) > maxHealthPath || strings.ContainsFunc(h.path, odd):
		errs = append(errs, fmt.Errorf("--healthz-path=%.64q: give the path of an address, such as /healthz", h.path))
	case h.path == providerd.ReadyPath:
		errs = append(errs, bad("healthz-path", h.path, "this is where the readiness probe is answered: give another"))
	}
	if h.timeout <= 0 || h.timeout > maxHealthTimeout {
		errs = append(errs, bad("healthz-timeout", h.timeout, "give a time from 1ms to %v", maxHealthTimeout))
	}
	return errors.Join(errs...)
}

func checkMetrics(m metricsOptions) error {
	var errs []error
	if m.port < 0 || m.port > 65535 {
		errs = append(errs, bad("prometheus-port", m.port, "give a port from 1 to 65535, or 0 for none"))
	}
	if m.pprof && (m.pprofPort < 1 || m.pprofPort > 65535) {
		errs = append(errs, bad("pprof-port", m.pprofPort, "give a port from 1 to 65535"))
	}
	return errors.Join(errs...)
}

// everywhere is the address of a port on all interfaces, where kubelet's probes and Prometheus reach it; "" for port 0.
func everywhere(port int) string {
	if port == 0 {
		return ""
	}
	return ":" + strconv.Itoa(port)
}

// profilesAt is where profiles are served: never where others than this machine reach them.
func profilesAt(m metricsOptions) string {
	if !m.pprof {
		return ""
	}
	return "127.0.0.1:" + strconv.Itoa(m.pprofPort)
}
