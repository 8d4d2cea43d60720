package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"keymount/internal/provider/plugin"
)

// The test binary doubles as the program, so that scripts run what users run.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"keymount-azure": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"answers":    answers,
			"get":        get,
			"hardened":   hardened,
			"leave-over": leaveOver,
			"mode":       mode,
			"ports":      ports,
			"terminate":  terminate,
		},
	})
}

// answers SOCKET waits until a provider answers there, and prints its names.
func answers(ts *testscript.TestScript, _ bool, args []string) {
	c := plugin.NewClient(plugin.ClientConfig{Socket: ts.MkAbs(args[0]), ConnectWithin: time.Minute})
	defer c.Close()
	info, err := c.Version(context.Background())
	ts.Check(err)
	ts.Stdout().Write([]byte(info.RuntimeName + " " + info.RuntimeVersion + "\n"))
}

// ports NAME... sets variables to ports that nobody has.
func ports(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		defer l.Close() // after all are chosen, so that they differ
		_, port, err := net.SplitHostPort(l.Addr().String())
		ts.Check(err)
		ts.Setenv(name, port)
	}
}

// get STATUS URL prints what is served there, and fails if nothing is or its status is another.
func get(ts *testscript.TestScript, neg bool, args []string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(args[1])
	if neg {
		if err == nil {
			ts.Fatalf("somebody answers %s: %s", args[1], resp.Status)
		}
		return
	}
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Stdout().Write(body)
	if fmt.Sprint(resp.StatusCode) != args[0] {
		ts.Fatalf("%s: %s: %s", args[1], resp.Status, body)
	}
}

// leave-over SOCKET makes a socket that nobody serves.
func leaveOver(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: ts.MkAbs(args[0]), Net: "unix"})
	ts.Check(err)
	l.SetUnlinkOnClose(false)
	ts.Check(l.Close())
}

// hardened checks that the last background program writes no core dump: it does so first thing, with all that hardens it.
func hardened(ts *testscript.TestScript, _ bool, _ []string) {
	programs := ts.BackgroundCmds()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", programs[len(programs)-1].Process.Pid))
	ts.Check(err)
	for line := range strings.Lines(string(limits)) {
		if strings.HasPrefix(line, "Max core file size") && strings.Fields(line)[4] == "0" && strings.Fields(line)[5] == "0" {
			return
		}
	}
	ts.Fatalf("it may write core dumps: %s", limits)
}

// mode FILE MODE checks a file's mode as ls shows it.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Lstat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := info.Mode().String(); got != args[1] {
		ts.Fatalf("mode %s, want %s", got, args[1])
	}
}

// terminate asks the last background program to stop as Kubernetes does.
func terminate(ts *testscript.TestScript, _ bool, _ []string) {
	programs := ts.BackgroundCmds()
	ts.Check(programs[len(programs)-1].Process.Signal(syscall.SIGTERM))
}
