//go:build integration && linux

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keymount/test/e2e/cluster/control"
	"keymount/test/e2e/cluster/internal/layout"
	"keymount/test/e2e/cluster/internal/sweep"
)

func TestFaults(t *testing.T) {
	for line, want := range map[string]fault{
		"kill-kubelet n1":         {action: control.Kill, component: "kubelet", machine: "n1"},
		"stop-containerd n2":      {action: control.Stop, component: "containerd", machine: "n2"},
		"start-kubelet n1":        {action: control.Start, component: "kubelet", machine: "n1"},
		"pause-apiserver":         {action: control.Pause, component: "kube-apiserver", machine: "cp"},
		"resume-apiserver cp":     {action: control.Resume, component: "kube-apiserver", machine: "cp"},
		"kill-etcd":               {action: control.Kill, component: "etcd", machine: "cp"},
		"kill-controller-manager": {action: control.Kill, component: "kube-controller-manager", machine: "cp"},
		"reboot n1":               {network: "reboot", machine: "n1"},
		"partition n2":            {network: "partition", machine: "n2"},
		"heal n2":                 {network: "heal", machine: "n2"},
	} {
		if got, err := parseFault(strings.Fields(line)); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", line, got, err, want)
		}
	}
	for line, want := range map[string]string{
		"reboot":              "needs a node",
		"kill-kubelet":        "needs a node",
		"kill-apiserver n1":   "runs on machine cp only",
		"kill-everything":     `no component "everything"`,
		"explode-kubelet n1":  `no fault "explode-kubelet"`,
		"kill":                `no component ""`,
		"kill-kube-apiserver": `no component "kube-apiserver"`,
	} {
		if _, err := parseFault(strings.Fields(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

func TestUpRefuses(t *testing.T) {
	for want, change := range map[string]func(*upFlags){
		"--nodes 0: give 1 to 20": func(f *upFlags) { f.nodes = 0 },
		"--nodes 21":              func(f *upFlags) { f.nodes = 21 },
		"--sync-frequency 10ms":   func(f *upFlags) { f.syncFrequency = 10 * time.Millisecond },
		"no such file":            func(f *upFlags) { f.images = []string{"/nonexistent.tar"} },
		"give a tar file":         func(f *upFlags) { f.images = []string{t.TempDir()} },
	} {
		f := upFlags{nodes: 1, syncFrequency: 2 * time.Second}
		if err := f.check(); err != nil {
			t.Fatal(err)
		}
		change(&f)
		if err := f.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Command lines that make no sense, and those for which no cluster runs, say what to do.
func TestCommandLines(t *testing.T) {
	dir := t.TempDir()
	for line, want := range map[string]string{
		"status --dir " + dir:               "no cluster runs",
		"load --dir " + dir + " x.tar":      "cluster up --dir " + dir,
		"exec --dir " + dir + " -- true":    "no cluster runs",
		"fault --dir " + dir + " reboot n1": "no cluster runs",
		"fault":                             "accepts between 1 and 2 arg",
		"load":                              "requires at least 1 arg",
		"exec --machine":                    "flag needs an argument",
		"up --no-such-flag":                 "unknown flag: --no-such-flag (cluster up --help lists the flags)",
		"no-such-command":                   "unknown command",
		"up x":                              `unknown command "x"`,
	} {
		root := rootCommand()
		root.SetArgs(strings.Fields(line))
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

func TestDownWithoutACluster(t *testing.T) {
	root := rootCommand()
	var out bytes.Buffer
	root.SetArgs([]string{"down", "--dir", "/nonexistent/cluster"})
	root.SetOut(&out)
	if err := root.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), "no cluster in") {
		t.Errorf("%v, %s", err, &out)
	}
}

// A folder that was named by mistake keeps its files, whatever they are called.
func TestDownTouchesNothingOfOthers(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"hosts", "kubeconfig", "ca.crt", "machines/keep", "images/keep"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		root := rootCommand()
		root.SetArgs([]string{"down", "--dir", dir})
		root.SetOut(io.Discard)
		if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "never a cluster's") {
			t.Errorf("with %s: %v", name, err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
		if err := sweep.Clean(layout.Dir(dir)); !errors.Is(err, layout.ErrForeign) {
			t.Errorf("sweeping with %s: %v", name, err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func TestHelpTeaches(t *testing.T) {
	for _, command := range rootCommand().Commands() {
		if !command.Hidden && (command.Short == "" || command.Long == "") {
			t.Errorf("%s has no help", command.Name())
		}
	}
}

func TestStatusTable(t *testing.T) {
	var out bytes.Buffer
	err := printStatus(&out, control.Status{
		Dir: "/srv/c", Keeper: 10, Sweeper: 11, Ready: true, APIServer: "127.0.0.1:16443",
		Machines: []control.Machine{
			{Name: "cp", Address: "10.200.0.1", PID: 12, Boots: 1, Components: []control.Component{
				{Name: "etcd", PID: 3}, {Name: "kube-apiserver", PID: 4, Paused: true}, {Name: "dns", Restarts: 2, Exit: "exit code 1"}}},
			{Name: "n1", Address: "10.200.0.11", PID: 13, Boots: 3, Partitioned: true, Components: []control.Component{{Name: "kubelet", Stopped: true}}},
			{Name: "n2", Address: "10.200.0.12", Boots: 1},
		},
	})
	want := `cluster /srv/c: ready, API server https://127.0.0.1:16443, held by process 10, swept by 11

MACHINE  ADDRESS      COMPONENT       PID  STATE        RESTARTS  LAST END
cp       10.200.0.1                   12   up           0         
                      etcd            3    running      0         
                      kube-apiserver  4    paused       0         
                      dns             0    starting     2         exit code 1
n1       10.200.0.11                  13   partitioned  2         
                      kubelet         0    stopped      0         
n2       10.200.0.12                  0    ended        0         
`
	if err != nil || out.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, &out, want)
	}
}
