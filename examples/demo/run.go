package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// output runs a program, showing its command line, and returns what it prints.
func output(ctx context.Context, name string, args ...string) (string, error) {
	command(name + " " + strings.Join(args, " "))
	return capture(ctx, "", name, args...)
}

func capture(ctx context.Context, input, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("it did not end within %v", patience))
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return string(out), nil
}

// rotate stores a new version of the secret and returns its id.
func rotate(ctx context.Context, value string) (version string, err error) {
	out, err := capture(ctx, value, "keyvault-emulator", "secret", "set", vault, "db-password")
	return strings.TrimSpace(out), err
}

// A watcher is keymount mount --watch in the background.
type watcher struct {
	cmd   *exec.Cmd
	lines chan string // what it prints; closed at its end
}

func start(ctx context.Context, name string, args ...string) (*watcher, error) {
	r, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	w := &watcher{cmd: exec.CommandContext(ctx, name, args...), lines: make(chan string, 1000)}
	w.cmd.Stdout, w.cmd.Stderr = out, out
	if err := w.cmd.Start(); err != nil {
		r.Close()
		return nil, err
	}
	go func() {
		defer close(w.lines)
		defer r.Close()
		for in := bufio.NewScanner(r); in.Scan(); {
			w.lines <- in.Text()
		}
	}()
	return w, nil
}

// await returns the next line that contains text. If none comes, the error has what came.
func (w *watcher) await(text string) (string, error) {
	timeout := time.After(patience)
	var seen []string
	for {
		select {
		case line, ok := <-w.lines:
			switch {
			case strings.Contains(line, text):
				return line, nil
			case !ok:
				return "", fmt.Errorf("keymount ended, without a line that says %q; it said:\n%s", text, indent(strings.Join(seen, "\n")))
			}
			seen = append(seen, line)
		case <-timeout:
			return "", fmt.Errorf("keymount did not say %q within %v; it said:\n%s", text, patience, indent(strings.Join(seen, "\n")))
		}
	}
}

// interrupt sends what Ctrl-C sends; keymount must then end well.
func (w *watcher) interrupt() error {
	if err := w.cmd.Process.Signal(os.Interrupt); err != nil {
		return fmt.Errorf("interrupting keymount: %w", err)
	}
	timer := time.AfterFunc(patience, func() { w.cmd.Process.Kill() })
	defer timer.Stop()
	if err := w.cmd.Wait(); err != nil {
		return fmt.Errorf("keymount should have ended with exit code 0: %w", err)
	}
	return nil
}

// kill ends it if it still runs.
func (w *watcher) kill() {
	if w.cmd.ProcessState == nil {
		w.cmd.Process.Kill()
		w.cmd.Wait()
	}
}
