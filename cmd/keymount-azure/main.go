// Command keymount-azure serves the Azure Key Vault provider on a socket, for the Secrets Store CSI Driver or to keep network
// code out of a privileged process. It owns the flags and their meaning, puts internal/azure behind
// internal/provider/plugin, and is the only place that exits.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"keymount/internal/azure"
	"keymount/internal/process"
	"keymount/internal/provider/plugin"
)

// Set at link time.
var (
	version   = "development"
	buildDate = ""
)

// runtimeName is what upstream's provider calls itself in the Version call.
const runtimeName = "secrets-store-csi-driver-provider-azure"

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
	azureProvider, err := azure.New(azure.Config{
		CloudName:                      opt.cloudName,
		CloudFile:                      os.Getenv("AZURE_ENVIRONMENT_FILEPATH"),
		AuthorityHost:                  os.Getenv("AZURE_AUTHORITY_HOST"),
		ConstructPEMChain:              opt.constructPEMChain,
		WriteCertAndKeyInSeparateFiles: opt.separateFiles,
		ShareFor:                       opt.shareReadsFor,
		UserAgent:                      "keymount-azure/" + version,
		Logger:                         log,
	})
	if err != nil {
		return fmt.Errorf("failed validating default cloud environment: %w", err)
	}
	l, err := plugin.Listen(opt.endpoint)
	if err != nil {
		return err
	}
	if l.Addr().Network() != "unix" {
		log.Warn("secrets are served in the clear to whoever reaches this port: prefer a unix socket", "address", l.Addr().String())
	}
	log.Info("serving", "address", l.Addr().String(), "version", version)
	info := plugin.Info{RuntimeName: runtimeName, RuntimeVersion: version}
	if err := plugin.NewServer(azureProvider, info, log).Serve(ctx, l); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}
