//go:build integration && linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"

	"keymount/test/e2e/cluster/internal/keeper"
	"keymount/test/e2e/cluster/internal/layout"
)

// File descriptors of the process that holds a cluster.
const (
	lockFD   = 3
	reportFD = 4
)

// A report is one line that the holding process tells to the one that started it.
type report struct {
	Say   string // what is done
	Ready string // the API server's address: the cluster is ready
	Error string // it is not, and will not be
}

// hold holds the cluster in this process.
func hold(ctx context.Context, dir layout.Dir, lock *os.File, say func(string), ready func(string)) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	return keeper.Run(ctx, dir, lock, log, say, ready)
}

// detach starts a process that holds the cluster, in a session of its own, and returns when the cluster is ready.
func detach(ctx context.Context, dir layout.Dir, lock *os.File, say func(string), ready func(string)) error {
	log, err := os.OpenFile(dir.KeeperLog(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	defer log.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("starting the process that holds the cluster: %w", err)
	}
	defer read.Close()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{"keymount-cluster", "keep", "--dir", string(dir)},
		Dir: "/", Env: os.Environ(), Stdout: log, Stderr: log, ExtraFiles: []*os.File{lock, write},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = cmd.Start()
	write.Close()
	if err != nil {
		return fmt.Errorf("starting the process that holds the cluster: %w", err)
	}
	// Interrupted meanwhile, there is to be no cluster: the process is told to stop, and is waited for as ever.
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	reports := json.NewDecoder(read)
	for {
		var r report
		err := reports.Decode(&r)
		switch {
		case err != nil:
			return fmt.Errorf("starting the cluster: the process that holds it ended (%v); the end of %s:\n%s",
				errors.Join(ctx.Err(), cmd.Wait()), dir.KeeperLog(), keeper.Tail(dir.KeeperLog()))
		case r.Error != "":
			_ = cmd.Wait() // it has said why it ends
			return errors.New("starting the cluster: " + r.Error)
		case r.Ready != "":
			ready(r.Ready)
			return nil
		default:
			say(r.Say)
		}
	}
}

// keepCommand is the process that detach starts.
func keepCommand() *cobra.Command {
	return &cobra.Command{
		Use: "keep", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := clusterDir(c)
			if err != nil {
				return err
			}
			syscall.CloseOnExec(lockFD)
			syscall.CloseOnExec(reportFD)
			pipe := os.NewFile(reportFD, "report")
			tell := func(r report) {
				_ = json.NewEncoder(pipe).Encode(r) // who started the cluster may be gone; the cluster is not theirs alone
			}
			isReady := false
			err = hold(c.Context(), dir, os.NewFile(lockFD, "lock"), func(text string) { tell(report{Say: text}) }, func(address string) {
				isReady = true
				tell(report{Ready: address})
				pipe.Close()
			})
			if err != nil && !isReady {
				tell(report{Error: err.Error()})
			}
			return err
		},
	}
}
