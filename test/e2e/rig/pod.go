//go:build integration && linux

package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
)

// A Pod is a running pod of a scenario, seen from inside: files are read by a program in its first container.
type Pod struct {
	s *Scenario
	// Name, Node and UID are those of the pod when it was Ready.
	Name, Node, UID string
}

// Pod starts a pod that mounts each class at /mnt/CLASS with the application's credentials, and waits until it is Ready.
func (s *Scenario) Pod(name string, classes ...string) *Pod {
	s.Helper()
	s.StartPod(name, classes...)
	return s.Ready(name)
}

// StartPod is Pod without the wait.
func (s *Scenario) StartPod(name string, classes ...string) {
	s.Helper()
	var mounts, volumes strings.Builder
	for _, c := range classes {
		fmt.Fprintf(&mounts, "    - {name: %s, mountPath: /mnt/%s, readOnly: true}\n", c, c)
		fmt.Fprintf(&volumes, `  - name: %s
    csi:
      driver: secrets-store.csi.k8s.io
      readOnly: true
      volumeAttributes: {secretProviderClass: %s}
      nodePublishSecretRef: {name: principal}
`, c, c)
	}
	s.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: "{{.Busybox}}"
    command: [sleep, "86400"]
    volumeMounts:
` + mounts.String() + "  volumes:\n" + volumes.String())
}

// Ready waits until a pod is Ready, however it was made.
func (s *Scenario) Ready(name string) *Pod {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	var p *pod
	err := s.pods.await(ctx, func() error {
		if p = s.pods.get(s.Namespace + "/" + name); p == nil {
			return errors.New("there is no such pod")
		}
		if p.DeletionTimestamp == nil && ready(p) {
			return nil
		}
		return errors.New(state(p))
	})
	if err != nil {
		s.Fatalf("waiting for pod %s to be Ready: %v\n%s", name, err, s.describe())
	}
	return &Pod{s: s, Name: name, Node: p.Spec.NodeName, UID: string(p.UID)}
}

func ready(p *pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// state tells in a line how a pod is.
func state(p *pod) string {
	text := string(p.Status.Phase)
	if p.DeletionTimestamp != nil {
		text += ", being deleted"
	}
	for _, c := range p.Status.ContainerStatuses {
		switch {
		case c.State.Waiting != nil:
			text += fmt.Sprintf(", container %s waits: %s %s", c.Name, c.State.Waiting.Reason, c.State.Waiting.Message)
		case c.State.Terminated != nil:
			text += fmt.Sprintf(", container %s ended: %s, exit code %d", c.Name, c.State.Terminated.Reason, c.State.Terminated.ExitCode)
		}
		if c.RestartCount > 0 {
			text += fmt.Sprintf(", %d restarts of %s", c.RestartCount, c.Name)
		}
	}
	return text
}

// Delete deletes the pod and waits until it is gone, and its volumes with it.
func (p *Pod) Delete() {
	p.s.Helper()
	ctx, cancel := p.s.bound()
	defer cancel()
	p.s.Suite.deletePod(ctx, p.s.T, p.s.Namespace, p.Name, p.UID)
}

func (s *Suite) deletePod(ctx context.Context, t interface{ Fatalf(string, ...any) }, namespace, name, uid string) {
	if err := s.api.delete(ctx, "v1/Pod", namespace, name); err != nil {
		t.Fatalf("deleting pod %s: %v", name, err)
	}
	err := s.pods.await(ctx, func() error {
		if p := s.pods.get(namespace + "/" + name); p != nil && string(p.UID) == uid {
			return errors.New(state(p))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("waiting for pod %s to be gone: %v", name, err)
	}
}

// Exec runs a command in the pod's first container and returns what it printed.
func (p *Pod) Exec(command ...string) string {
	p.s.Helper()
	out, err := p.TryExec(command...)
	if err != nil {
		p.s.Fatalf("running %q in pod %s: %v", command, p.Name, err)
	}
	return out
}

// TryExec is Exec for commands that may fail.
func (p *Pod) TryExec(command ...string) (string, error) {
	p.s.Helper()
	return p.s.kubectl(append([]string{"exec", "-n", p.s.Namespace, p.Name, "--"}, command...)...)
}

// File reads a file.
func (p *Pod) File(path string) string {
	p.s.Helper()
	return p.Exec("cat", path)
}

// Files are the names in a folder, without those that begin with a dot.
func (p *Pod) Files(dir string) []string {
	p.s.Helper()
	return strings.Fields(p.Exec("ls", dir))
}

// AwaitFile waits, inside the pod, until a file has exactly that content.
func (p *Pod) AwaitFile(path, content string) {
	p.s.Helper()
	script := `n=0; while [ "$(cat "$0" 2>/dev/null; echo .)" != "$1." ]; do n=$((n+1)); [ $n -lt 450 ] || { cat "$0"; exit 1; }; sleep 0.2; done`
	if out, err := p.TryExec("sh", "-c", script, path, content); err != nil {
		p.s.Fatalf("waiting for %s of pod %s to be %q: %v; it is %q\n%s", path, p.Name, content, err, out, p.s.describe())
	}
}

// Restarted waits until the pod is Ready under the same name but another uid, as a StatefulSet's is after its end.
func (p *Pod) Restarted() *Pod {
	p.s.Helper()
	for {
		next := p.s.Ready(p.Name)
		if next.UID != p.UID {
			return next
		}
		p.s.Await("another pod "+p.Name, func() error {
			if now := p.s.pods.get(p.s.Namespace + "/" + p.Name); now != nil && string(now.UID) == p.UID {
				return errors.New(state(now))
			}
			return nil
		})
	}
}

// Kubectl runs kubectl as the administrator and returns what it printed.
func (s *Scenario) Kubectl(args ...string) string {
	s.Helper()
	out, err := s.kubectl(args...)
	if err != nil {
		s.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func (s *Scenario) kubectl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(s.Context(), 2*Bound)
	defer cancel()
	return run(ctx, exec.CommandContext(ctx, filepath.Join(s.programs, "kubectl"),
		append([]string{"--kubeconfig", s.api.kubeconfig, "--cache-dir", filepath.Join(s.logDir, "kubectl-cache")}, args...)...))
}

// run returns a program's standard output; the error has what it said.
func run(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it ends with the suite, whatever ends that
	// The signal comes when the thread ends, and one that runs something in a node does: this one is kept until the program has ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%w: %s", errors.Join(err, ctx.Err()), strings.TrimSpace(said.String()))
	}
	return out.String(), err
}
