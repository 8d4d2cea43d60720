//go:build integration && linux

// Package machine runs a machine of the cluster: one process that is the first of namespaces of its own (mounts, processes,
// network, host name, IPC, control groups), has a root file system of its own in memory, and runs the components that it is
// told to run. The end of that process is the end of everything in it, mounts and links included; and it ends when the
// process that started it does, however that ends.
//
// The package has two sides: Machine, for who starts machines, and Init, which is what the started process does. They talk
// over a socket that both inherit. It imports only cgroups, and knows nothing of Kubernetes. A Machine's methods may be
// called concurrently.
package machine

import "time"

// A Spec is what a machine is before its components run.
type Spec struct {
	Name   string
	Root   string            // a folder of the outer machine, for the root file system to be mounted on
	Share  []string          // folders of the outer machine that are seen in the same place
	Binds  []Bind            // files and folders of the outer machine, seen elsewhere
	Files  map[string]string // files of the root file system
	Sysctl map[string]string // files below /proc/sys that read as this here, and whose writers change nothing outside
	Links  map[string]string // symbolic links: name to target
	Env    []string          // of the components
}

// A Bind makes a file or a folder of the outer machine visible.
type Bind struct {
	Source, Target string
	ReadOnly       bool
}

// A Component is a program that a machine keeps running.
type Component struct {
	Name string
	Log  string   // where its output goes
	Args []string // with the program's path first; [Self] is the program of the cluster
	// Listener gives the program the listener that the machine was made with, as file descriptor [ListenerFD].
	Listener bool
	// After is the address that must take connections before the program starts: "unix:/path" or "tcp:address:port". It
	// spares programs that end when they do not find what they need.
	After string
}

// Self stands for the program that the machine's first process runs.
const Self = "/proc/self/exe"

// ListenerFD: see [Component].
const ListenerFD = 3

// RestartDelay is how long a component that ended stays away.
const RestartDelay = 300 * time.Millisecond

// A State is how a component fares.
type State struct {
	Name     string
	PID      int // in the machine; 0 while it does not run
	Restarts int
	Stopped  bool   // it is not to run
	Paused   bool   // it is stopped in its tracks
	Exit     string // how it last ended
}

// An Action is what can be done to a component.
type Action string

// The actions.
const (
	Kill   Action = "kill"   // end it at once; it is restarted
	Stop   Action = "stop"   // end it and keep it away
	Start  Action = "start"  // let it run again
	Pause  Action = "pause"  // it is there and does not move
	Resume Action = "resume" // it moves again
)
