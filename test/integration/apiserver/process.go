//go:build integration && linux

package apiserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// A process is a running program that writes its output to a file.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // how it ended; set before done is closed
}

func startProcess(dir, program string, args []string) (*process, error) {
	name := filepath.Base(program)
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	output, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer output.Close() // the child holds its own
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = output, output
	p.cmd.Env = []string{"HOME=" + dir, "TMPDIR=" + dir} // nothing of the caller's, proxies above all
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		// The child dies with us however we end. A group of its own keeps ^C from reaching it before the tests are done.
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true,
	}
	started := make(chan error)
	go func() {
		// The death signal is bound to the thread that forked, not to the process, so this thread must live as long as the
		// child. It is never unlocked: the runtime ends it with this goroutine.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return p, nil
}

func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %v", p.name, p.err)
	default:
		return nil
	}
}

// kill needs no grace: nobody reads what the programs would save.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only when it has ended
	<-p.done
}

// tail returns the end of the log.
func (p *process) tail() string {
	const most = 16 << 10
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(text) > most {
		text = text[len(text)-most:]
		_, rest, _ := strings.Cut(string(text), "\n")
		return rest
	}
	return string(text)
}
