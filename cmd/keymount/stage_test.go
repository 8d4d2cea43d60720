package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
	"keymount/internal/provider/providertest"
)

// vault is the vault of examples/azure, which the scripts mount.
const vault = "keymount-demo"

// patience bounds the wait for a line that does not come; nothing is measured against it.
const patience = 30 * time.Second

// A stage is what one script plays on: an emulator, a provider on a socket, and programs that run beside the script.
type stage struct {
	t        *testing.T
	emu      *emulatortest.Emulator
	fake     *providertest.Fake
	programs map[string]*program
}

type stageKey struct{}

func newStage(t *testing.T, env *testscript.Env) error {
	s := &stage{t: t, programs: map[string]*program{}}
	env.Values[stageKey{}] = s
	env.Defer(s.end)
	env.Setenv("GORACE", "atexit_sleep_ms=0") // a program under the race detector otherwise takes a second to end
	for _, example := range []string{"secretproviderclass.yaml", "workload-identity.yaml"} {
		data, err := os.ReadFile(filepath.Join("../../examples/azure", example))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(env.WorkDir, example), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) end() {
	for _, p := range s.programs {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	}
}

// call is a command of the scripts.
type call struct {
	*testscript.TestScript
	neg  bool
	args []string
}

type action func(s *stage, c call)

func command(min, max int, usage string, do action) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if len(args) < min || len(args) > max {
			ts.Fatalf("usage: %s", usage)
		}
		do(ts.Value(stageKey{}).(*stage), call{ts, neg, args})
	}
}

// commands are what scripts can say beyond what testscript knows.
func commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"emulator": command(0, 0, "emulator", startEmulator),
		"secret":   command(2, 2, "secret NAME VALUE", putSecret),
		"fault":    command(2, 4, "fault ACTION KIND [RETRY-AFTER] | fault clear all", setFault),
		"token":    command(1, 1, "token FILE", writeToken),
		"requests": command(2, 2, "requests KIND COUNT", countRequests),
		"await":    command(1, 1, "await KIND", awaitRequest),
		"provider": command(1, 2, "provider SOCKET [writes-itself]", startProvider),
		"object":   command(2, 2, "object NAME VALUE", func(s *stage, c call) { s.fake.Set(c.args[0], c.args[1]) }),
		"break":    command(2, 2, "break NAME KIND", breakObject),
		"mode":     command(2, 2, "mode PATH OCTAL", checkMode),
		"code":     command(2, 100, "code EXIT-CODE PROGRAM ARGS...", checkCode),
		"watch":    command(2, 100, "watch NAME PROGRAM ARGS...", startProgram),
		"expect":   command(2, 2, "expect NAME REGEXP", expectLine),
		"signal":   command(2, 2, "signal NAME HUP|INT|TERM", sendSignal),
		"ended":    command(2, 2, "ended NAME EXIT-CODE", checkEnded),
	}
}

// startEmulator runs an emulator that holds what examples/azure asks for, and leads the script's programs there.
func startEmulator(s *stage, c call) {
	seed, err := emulator.ReadSeed("../../examples/azure/emulator-seed.yaml")
	c.Check(err)
	s.emu = emulatortest.Start(s.t, seed)
	for _, v := range s.emu.Env() {
		name, value, _ := strings.Cut(v, "=")
		c.Setenv(name, value)
	}
}

func putSecret(s *stage, c call) { s.emu.PutSecret(vault, c.args[0], c.args[1]) }

func setFault(s *stage, c call) {
	if c.args[0] == "clear" {
		s.emu.Server.ClearFault(0)
		return
	}
	f := emulator.Fault{Do: c.args[0], Kind: c.args[1]}
	if len(c.args) > 2 {
		f.RetryAfter = c.args[2]
	}
	_, err := s.emu.Server.SetFault(f)
	c.Check(err)
}

// writeToken writes the token of the service account that the workload identity example names.
func writeToken(s *stage, c call) {
	is := s.emu.Server.Issuer("https://oidc.keymount.example/demo/")
	if is == nil {
		c.Fatalf("the seed has no such issuer")
	}
	token, err := is.Token(emulator.ServiceAccount{Namespace: "default", Name: "keyvault-reader"},
		[]string{"api://AzureADTokenExchange"}, time.Hour)
	c.Check(err)
	c.Check(os.WriteFile(c.MkAbs(c.args[0]), []byte(token+"\n"), 0o600))
}

func countRequests(s *stage, c call) {
	want, err := strconv.Atoi(c.args[1])
	c.Check(err)
	if got := s.emu.Requests().Total(c.args[0]); got != want {
		c.Fatalf("%d requests of kind %s, want %d: %v", got, c.args[0], want, s.emu.Requests())
	}
}

// awaitRequest waits for one more request of a kind than there were when the last await or the fault began.
func awaitRequest(s *stage, c call) { s.emu.Await(c.args[0], s.emu.Requests().Total(c.args[0])+1) }

// startProvider serves the fake provider on a socket.
func startProvider(s *stage, c call) {
	s.fake = providertest.NewFake()
	var served provider.Provider = s.fake
	if len(c.args) > 1 {
		served = selfWriter{s.fake}
	}
	l, err := plugin.Listen("unix://" + c.MkAbs(c.args[0]))
	c.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		server := plugin.NewServer(served, plugin.Info{RuntimeName: "fake"}, slog.New(slog.DiscardHandler))
		done <- server.Serve(ctx, l)
	}()
	c.Defer(func() {
		cancel()
		c.Check(<-done)
	})
}

// selfWriter writes into the target itself, as some third-party providers do, and hands no files over.
type selfWriter struct{ *providertest.Fake }

func (p selfWriter) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	b, err := p.Fake.Fetch(ctx, req)
	if err != nil {
		return nil, err
	}
	for _, f := range b.Files {
		if err := os.WriteFile(filepath.Join(req.TargetPath, f.Path), f.Contents, 0o600); err != nil {
			return nil, err
		}
	}
	b.Files = nil
	return b, nil
}

func breakObject(s *stage, c call) {
	kind, ok := provider.ParseKind(c.args[1])
	if !ok {
		c.Fatalf("no kind %q", c.args[1])
	}
	s.fake.Break(c.args[0], kind)
}

func checkMode(_ *stage, c call) {
	info, err := os.Stat(c.MkAbs(c.args[0]))
	c.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != c.args[1] {
		c.Fatalf("%s has mode %s, want %s", c.args[0], got, c.args[1])
	}
}

// checkCode runs a program that must end with a code; stdout and stderr are then those of the program.
func checkCode(_ *stage, c call) {
	want, err := strconv.Atoi(c.args[0])
	c.Check(err)
	err = c.Exec(c.args[1], c.args[2:]...)
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		c.Check(err)
	}
	if got != want {
		c.Fatalf("exit code %d, want %d", got, want)
	}
}

// A program runs beside the script, which reads what it prints line by line.
type program struct {
	cmd   *exec.Cmd
	lines chan string // standard output and error; closed at the end
}

func startProgram(s *stage, c call) {
	p := &program{cmd: exec.Command(c.args[1], c.args[2:]...), lines: make(chan string, 1000)}
	path, err := lookPath(c, c.args[1])
	c.Check(err)
	p.cmd.Path, p.cmd.Err = path, nil
	p.cmd.Dir = c.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "GORACE", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
		"AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"} {
		p.cmd.Env = append(p.cmd.Env, name+"="+c.Getenv(name))
	}
	r, w, err := os.Pipe()
	c.Check(err)
	p.cmd.Stdout, p.cmd.Stderr = w, w
	c.Check(p.cmd.Start())
	w.Close()
	s.programs[c.args[0]] = p
	go func() {
		defer close(p.lines)
		defer r.Close()
		for in := bufio.NewScanner(r); in.Scan(); {
			p.lines <- in.Text()
		}
	}()
}

func lookPath(c call, name string) (string, error) {
	for _, dir := range filepath.SplitList(c.Getenv("PATH")) {
		if path := filepath.Join(dir, name); executable(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no program %q", name)
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func (s *stage) program(c call) *program {
	p := s.programs[c.args[0]]
	if p == nil {
		c.Fatalf("no program %q was started", c.args[0])
	}
	return p
}

// expectLine waits for a line that matches, and says which came instead.
func expectLine(s *stage, c call) {
	p := s.program(c)
	want, err := regexp.Compile(c.args[1])
	c.Check(err)
	timeout := time.After(patience)
	var seen []string
	for {
		select {
		case line, ok := <-p.lines:
			if want.MatchString(line) {
				return
			}
			if !ok {
				c.Fatalf("%s ended without a line that matches %q; it said\n%s", c.args[0], want, strings.Join(seen, "\n"))
			}
			seen = append(seen, line)
		case <-timeout:
			c.Fatalf("no line of %s matches %q; it said\n%s", c.args[0], want, strings.Join(seen, "\n"))
		}
	}
}

func sendSignal(s *stage, c call) {
	signals := map[string]os.Signal{"HUP": syscall.SIGHUP, "INT": os.Interrupt, "TERM": syscall.SIGTERM}
	sig, ok := signals[c.args[1]]
	if !ok {
		c.Fatalf("no signal %q", c.args[1])
	}
	c.Check(s.program(c).cmd.Process.Signal(sig))
}

// checkEnded waits for the end of a program.
func checkEnded(s *stage, c call) {
	p := s.program(c)
	delete(s.programs, c.args[0])
	var rest []string
	for line := range p.lines {
		rest = append(rest, line)
	}
	p.cmd.Wait() // the code says it
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != c.args[1] {
		c.Fatalf("%s ended with code %s, want %s; it last said\n%s", c.args[0], got, c.args[1], strings.Join(rest, "\n"))
	}
}
