//go:build unix

package main

import (
	"os"
	"syscall"

	"golang.org/x/term"
)

// passedOn are the signals that end or steer a command.
func passedOn() []os.Signal {
	return []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}
}

// terminalSends reports whether the terminal has sent the signal to the command too, which would otherwise get it twice.
func terminalSends(sig os.Signal) bool {
	return (sig == syscall.SIGINT || sig == syscall.SIGQUIT) && term.IsTerminal(int(os.Stdin.Fd()))
}

// exitCode is the command's, or 128 and the signal that ended it, as shells have it.
func exitCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}
