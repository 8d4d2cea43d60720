//go:build !unix

package main

import "os"

// passedOn are the signals that end a command. Consoles send them to the command as well.
func passedOn() []os.Signal { return []os.Signal{os.Interrupt} }

func terminalSends(os.Signal) bool { return true }

func exitCode(state *os.ProcessState) int { return state.ExitCode() }
