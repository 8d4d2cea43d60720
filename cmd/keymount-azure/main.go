// Command keymount-azure serves the Azure Key Vault provider on a socket, for the Secrets Store CSI Driver or to keep network
// code out of a privileged process. It owns the flags and their meaning, puts internal/azure into internal/providerd, and is
// the only place that exits.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"keymount/internal/azure"
	"keymount/internal/process"
	"keymount/internal/provider/plugin"
	"keymount/internal/providerd"
	"keymount/internal/socket"
)

// Set at link time.
var (
	version   = "development"
	buildDate = ""
)

// What upstream's provider calls itself: in the Version call, and in the labels of its metrics.
const (
	runtimeName = "secrets-store-csi-driver-provider-azure"
	serviceName = "csi-secrets-store-provider-azure"
)

func main() { os.Exit(process.Main("keymount-azure", run)) }

// run serves until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opt, err := parse(args, stdout)
	if err != nil {
		return err
	}
	if opt.version {
		return json.NewEncoder(stdout).Encode(struct {
			Version   string `json:"version"`
			BuildDate string `json:"buildDate"`
		}{version, buildDate})
	}
	log, closeLog, err := opt.log.Open(stdout, stderr)
	if err != nil {
		return err
	}
	defer closeLog()
	cfg, err := config(opt, log)
	if err != nil {
		return err
	}
	if len(opt.waiting) > 0 {
		log.Warn("identity bindings are not there yet, so these flags have no effect, and classes with useAzureTokenProxy are refused",
			"flags", strings.Join(opt.waiting, " "))
	}
	return providerd.Run(ctx, cfg)
}

// config puts the provider behind the socket, health and metrics that the flags ask for.
func config(opt *options, log *slog.Logger) (providerd.Config, error) {
	if !strings.EqualFold(opt.metrics.backend, backend) {
		return providerd.Config{}, fmt.Errorf("unsupported metrics backend %s: there is only %s", opt.metrics.backend, backend)
	}
	endpoint, err := socket.ParseEndpoint(opt.endpoint)
	if err != nil {
		return providerd.Config{}, fmt.Errorf("failed to parse endpoint: %w", err)
	}
	instruments := providerd.NewInstruments(azure.Name, serviceName, version)
	azureProvider, err := azure.New(azure.Config{
		CloudName:                      opt.cloudName,
		CloudFile:                      os.Getenv("AZURE_ENVIRONMENT_FILEPATH"),
		AuthorityHost:                  os.Getenv("AZURE_AUTHORITY_HOST"),
		ConstructPEMChain:              opt.constructPEMChain,
		WriteCertAndKeyInSeparateFiles: opt.separateFiles,
		ShareFor:                       opt.shareReadsFor,
		UserAgent:                      strings.TrimSpace("keymount-azure/" + version + " " + opt.userAgent),
		Observe:                        func(r azure.Read) { instruments.Read(r.ObjectType, r.Took, r.Err) },
		Logger:                         log,
	})
	if err != nil {
		return providerd.Config{}, fmt.Errorf("failed validating default cloud environment: %w", err)
	}
	return providerd.Config{
		Name: azure.Name, Provider: azureProvider,
		Info:     plugin.Info{RuntimeName: runtimeName, RuntimeVersion: version},
		Endpoint: endpoint,
		Health:   everywhere(opt.health.port), HealthPath: opt.health.path, HealthWithin: opt.health.timeout,
		Metrics: everywhere(opt.metrics.port), Profiles: profilesAt(opt.metrics),
		Instruments: instruments, Log: log,
	}, nil
}
