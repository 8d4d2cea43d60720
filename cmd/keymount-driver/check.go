package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"keymount/internal/daemon"
)

const (
	// maxShareReadsFor bounds --share-reads-for: a mount must not be served what a vault said long ago.
	maxShareReadsFor = time.Minute
	// minClassInterval bounds --min-rotation-poll-interval: one class must not make a node ask all the time.
	minClassInterval = time.Second
	// maxMessage bounds --max-call-recv-msg-size: 2 GiB is what the protocol's lengths can say.
	maxMessage = 1<<31 - 1
	// metricsDefault is what upstream takes an empty --metrics-addr for.
	metricsDefault = ":8080"
	// maxAnnotations bounds --service-account-annotations: they go into every request.
	maxAnnotations = 32
)

var (
	driverNameRule   = regexp.MustCompile(`^[a-zA-Z0-9]([-a-zA-Z0-9.]{0,61}[a-zA-Z0-9])?$`) // of the CSI specification
	providerNameRule = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,30}$`)                          // of the provider protocol
	annotationRule   = regexp.MustCompile(`^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[a-zA-Z0-9]([-a-zA-Z0-9_.]{0,61}[a-zA-Z0-9])?$`)
)

// bad names the flag, its value and what to do.
func bad(name string, value any, remedy string, args ...any) error {
	return fmt.Errorf("--%s=%v: %s", name, value, fmt.Sprintf(remedy, args...))
}

// check completes cfg from in, and returns everything that makes no sense.
func check(flags *flag.FlagSet, cfg *daemon.Config, in *raw) error {
	var errs []error
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q: there are only flags", flags.Arg(0)))
	}
	errs = append(errs, checkDriver(cfg), checkProviders(cfg, in), checkAzure(cfg, in), checkRotation(cfg),
		checkRegistration(cfg, in), checkServers(cfg, in))
	return errors.Join(errs...)
}

func checkDriver(cfg *daemon.Config) error {
	var errs []error
	if !driverNameRule.MatchString(cfg.DriverName) {
		errs = append(errs, bad("drivername", cfg.DriverName,
			"give the name of the CSIDriver object: at most 63 letters, digits, dots and dashes, with a letter or digit at both ends"))
	}
	if n := cfg.Providers.MaxAnswer; n <= 0 || n > maxMessage {
		errs = append(errs, bad("max-call-recv-msg-size", n, "give a number of bytes from 1 to %d", maxMessage))
	}
	if cfg.StateDir == "" {
		cfg.StateDir = cfg.Endpoint.Folder()
	}
	return errors.Join(errs...)
}

func checkProviders(cfg *daemon.Config, in *raw) error {
	var errs []error
	cfg.Providers.Folders = append(elements(in.additionalVolumes), elements(in.providerVolume)...)
	for _, name := range elements(in.builtinProviders) {
		if name != "azure" {
			errs = append(errs, bad("builtin-providers", in.builtinProviders, "there is no %q: give azure, or serve it on a socket", name))
			continue
		}
		cfg.Providers.Azure = &in.azure
	}
	if len(cfg.Providers.Folders) == 0 && cfg.Providers.Azure == nil && len(errs) == 0 {
		errs = append(errs, bad("provider-volume", in.providerVolume, "there would be no provider at all: give the folder of their sockets"))
	}
	if in.healthCheck {
		cfg.Providers.HealthCheckInterval = in.healthCheckInterval
		if in.healthCheckInterval <= 0 {
			errs = append(errs, bad("provider-health-check-interval", in.healthCheckInterval, "give more than 0s, or leave --provider-health-check out"))
		}
	}
	cfg.Providers.Audiences = in.audiences
	cfg.ServiceAccountAnnotations = slices.Compact(slices.Sorted(slices.Values(elements(in.annotations))))
	if len(cfg.ServiceAccountAnnotations) > maxAnnotations {
		errs = append(errs, bad("service-account-annotations", in.annotations, "give at most %d", maxAnnotations))
	}
	for _, key := range cfg.ServiceAccountAnnotations {
		if !annotationRule.MatchString(key) {
			errs = append(errs, bad("service-account-annotations", in.annotations,
				"%q is no key of an annotation: give keys such as azure.workload.identity/client-id", key))
		}
	}
	return errors.Join(errs...)
}

// checkAzure refuses flags that would have no effect, rather than let them seem to work.
func checkAzure(cfg *daemon.Config, in *raw) error {
	var errs []error
	if cfg.Providers.Azure == nil {
		for _, name := range []string{"cloud-name", "construct-pem-chain", "write-cert-and-key-in-separate-files", "share-reads-for"} {
			if in.given[name] {
				errs = append(errs, fmt.Errorf("--%s: it is for the built-in Azure provider: give --builtin-providers=azure too, or leave it out", name))
			}
		}
	}
	if in.azure.ShareReadsFor < 0 || in.azure.ShareReadsFor > maxShareReadsFor {
		errs = append(errs, bad("share-reads-for", in.azure.ShareReadsFor, "give a duration from 0s to %v", maxShareReadsFor))
	}
	return errors.Join(errs...)
}

func checkRotation(cfg *daemon.Config) error {
	var errs []error
	if cfg.Rotation.Interval < 0 {
		errs = append(errs, bad("rotation-poll-interval", cfg.Rotation.Interval, "give 0s or more"))
	}
	if cfg.Rotation.MinInterval < minClassInterval {
		errs = append(errs, bad("min-rotation-poll-interval", cfg.Rotation.MinInterval, "give %v or more", minClassInterval))
	}
	return errors.Join(errs...)
}

func checkRegistration(cfg *daemon.Config, in *raw) error {
	dir, path := in.registration.Dir, in.registration.KubeletPath
	switch {
	case dir == "" && path == "":
		return nil
	case path == "":
		return bad("registration-dir", dir, "give --kubelet-registration-path too, the path of the CSI socket on the node")
	case dir == "":
		return bad("kubelet-registration-path", path, "give --registration-dir too, kubelet's plugins_registry folder in this container")
	case !filepath.IsAbs(path):
		return bad("kubelet-registration-path", path, "give an absolute path, such as /var/lib/kubelet/plugins/csi-secrets-store/csi.sock")
	case !cfg.Endpoint.IsUnix():
		return bad("registration-dir", dir, "kubelet reaches unix sockets only: give one as --endpoint")
	case cfg.NodeName == "":
		return bad("registration-dir", dir, "kubelet registers no driver without a node: give its name as --nodeid")
	}
	cfg.Registration = &in.registration
	return nil
}

func checkServers(cfg *daemon.Config, in *raw) error {
	var errs []error
	if !strings.EqualFold(in.metricsBackend, "Prometheus") {
		errs = append(errs, bad("metrics-backend", in.metricsBackend, "there is only Prometheus: leave it out"))
	}
	switch cfg.MetricsAddr { // as upstream's library takes it
	case "":
		cfg.MetricsAddr = metricsDefault
	case "0":
		cfg.MetricsAddr = ""
	}
	if in.pprof {
		cfg.PprofAddr = "127.0.0.1:" + strconv.Itoa(in.pprofPort) // upstream serves it to everybody
		if in.pprofPort < 1 || in.pprofPort > 65535 {
			errs = append(errs, bad("pprof-port", in.pprofPort, "give a port from 1 to 65535"))
		}
	}
	for _, server := range []struct{ name, addr string }{{"metrics-addr", cfg.MetricsAddr}, {"health-addr", cfg.HealthAddr}} {
		if server.addr != "" && !isAddress(server.addr) {
			errs = append(errs, bad(server.name, server.addr, "give host:port or :port"))
		}
	}
	return errors.Join(errs...)
}

func isAddress(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil || port == "" {
		return false
	}
	_, err = net.LookupPort("tcp", port)
	return err == nil
}

// elements splits a list at commas. Empty elements are none: upstream takes one for the working directory.
func elements(list string) []string {
	var all []string
	for _, element := range strings.Split(list, ",") {
		if element = strings.TrimSpace(element); element != "" {
			all = append(all, element)
		}
	}
	return all
}

// audiences is --provider-audiences, which may be repeated: the audiences of each provider.
type audiences map[string][]string

func (a *audiences) String() string { return "" }

func (a *audiences) Set(value string) error {
	name, list, found := strings.Cut(value, "=")
	name = strings.TrimSpace(name)
	switch _, again := (*a)[name]; {
	case !found || !providerNameRule.MatchString(name):
		return errors.New("want provider=audience,audience")
	case again:
		return fmt.Errorf("provider %q was there already: give all its audiences at once", name)
	}
	if *a == nil {
		*a = audiences{}
	}
	all := []string{} // not nil: a provider with no audience is given no token
	for _, audience := range elements(list) {
		if audience == `""` {
			audience = ""
		}
		all = append(all, audience)
	}
	(*a)[name] = all
	return nil
}
