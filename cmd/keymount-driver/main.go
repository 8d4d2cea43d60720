// Command keymount-driver is the node daemon: the Secrets Store CSI Driver of one node. It owns the flags and their meaning,
// hands internal/daemon a typed configuration, and is the only place that exits.
package main

import (
	"context"
	"encoding/json"
	"io"
	"os"

	"keymount/internal/daemon"
	"keymount/internal/process"
)

// Set at link time.
var (
	version   = "development"
	gitCommit = ""
	buildDate = ""
)

func main() { os.Exit(process.Main("keymount-driver", run)) }

// run serves until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opt, err := parse(args, os.Getenv, stdout)
	if err != nil {
		return err
	}
	if opt.version {
		return json.NewEncoder(stdout).Encode(struct{ BuildVersion, GitCommit, BuildDate string }{version, gitCommit, buildDate})
	}
	log, closeLog, err := opt.log.Open(stdout, stderr)
	if err != nil {
		return err
	}
	defer closeLog()
	cfg := opt.config
	cfg.Build = daemon.Build{Version: version, Commit: gitCommit, Date: buildDate}
	cfg.Log = log
	return daemon.Run(ctx, cfg)
}
