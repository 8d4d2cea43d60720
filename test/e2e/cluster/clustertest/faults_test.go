//go:build integration && linux

package clustertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"keymount/test/e2e/cluster/control"
	"keymount/test/e2e/cluster/internal/layout"
)

// One cluster of two nodes is enough for all that can be done to one. It ends with down.
func TestRootFaults(t *testing.T) {
	c := start(t, 2)
	c.runPod("first", "n1")
	c.runPod("second", "n2")
	t.Run("a second cluster in the folder", c.second)
	t.Run("programs run in machines", c.exec)
	t.Run("components end and come back", c.components)
	t.Run("the API server hangs", c.hang)
	t.Run("a node is cut off", c.partition)
	t.Run("a node reboots", c.reboot)
	t.Run("names are answered", c.names)

	// A program that was started in the cluster's network would keep it.
	running := exec.Command(c.program, "exec", "--dir", string(c.dir), "--", "sleep", "1000")
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	var during snapshot
	c.await("a program in the cluster", func(context.Context) error {
		during = look(t, c.dir)
		for _, line := range during.processes {
			if strings.Contains(line, "sleep 1000") {
				return nil
			}
		}
		return errors.New("it has not been started")
	})
	if output := c.command("down"); !strings.Contains(output, "cluster stopped in ") {
		t.Errorf("down says %q", output)
	}
	if err := running.Wait(); err == nil {
		t.Error("the program outlived the cluster")
	}
	c.gone(during)
	if output := c.command("down"); !strings.Contains(output, "no cluster ran in ") {
		t.Errorf("a second down says %q", output)
	}
}

func (c *cluster) second(t *testing.T) {
	output, err := exec.Command(c.program, "up", "--dir", string(c.dir)).CombinedOutput()
	if err == nil || !bytes.Contains(output, []byte("a cluster runs in ")) || !bytes.Contains(output, []byte("cluster down --dir")) {
		t.Errorf("%v: %s", err, output)
	}
}

func (c *cluster) exec(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"--", "ip", "-o", "-4", "address", "show", "br0"}, "10.200.0.1/24", 0},
		{[]string{"--machine", "n2", "--", "ip", "-o", "-4", "address", "show", "eth0"}, "10.200.0.12/24", 0},
		{[]string{"--machine", "n1", "--all", "--", "hostname"}, "n1\n", 0},
		{[]string{"--machine", "n1", "--all", "--", "cat", "/proc/sys/kernel/random/boot_id"}, c.machine("n1").BootID, 0},
		{[]string{"--", "sh", "-c", "cat; exit 7"}, "typed", 7},
		{[]string{"--all", "--", "sh", "-c", "cat; exit 7"}, "typed", 7},
		{[]string{"--", "sh", "-c", "kill -TERM $$"}, "", 143},
		{[]string{"--machine", "n9", "--", "true"}, "", 1},
	} {
		cmd := exec.Command(c.program, append([]string{"exec", "--dir", string(c.dir)}, tc.args...)...)
		cmd.Stdin = strings.NewReader("typed")
		output, _ := cmd.Output() // the code is looked at below
		if !strings.Contains(string(output), tc.want) || cmd.ProcessState.ExitCode() != tc.code {
			t.Errorf("exec %s: %q, %s; want %q, %d", strings.Join(tc.args, " "), output, cmd.ProcessState, tc.want, tc.code)
		}
	}
}

func (c *cluster) components(t *testing.T) {
	for _, tc := range []struct{ machine, component string }{{"n1", "kubelet"}, {"n1", "containerd"}, {"cp", "kube-apiserver"}, {"cp", "etcd"}, {"cp", "proxy"}} {
		c.do(tc.machine, control.Kill, tc.component)
		c.await(tc.component+" to come back", func(context.Context) error {
			component, err := c.machine(tc.machine).Component(tc.component)
			if err != nil || component.PID == 0 || component.Restarts == 0 || component.Exit != "killed by SIGKILL" {
				return fmt.Errorf("it is %+v, %v", component, err)
			}
			return nil
		})
	}
	before, err := c.machine("n1").Component("kubelet")
	if err != nil {
		t.Fatal(err)
	}
	c.do("n1", control.Stop, "kubelet")
	if kubelet, err := c.machine("n1").Component("kubelet"); err != nil || kubelet.PID != 0 || !kubelet.Stopped || kubelet.Restarts != before.Restarts {
		t.Errorf("stopped, kubelet is %+v, %v; before it was %+v", kubelet, err, before)
	}
	c.do("n1", control.Start, "kubelet")
	c.awaitPod("first", 0) // none of this ends a container
	if err := c.control.Do(t.Context(), "n1", control.Kill, "etcd"); err == nil || !strings.Contains(err.Error(), "containerd, kubelet") {
		t.Errorf("a component that is not there: %v", err)
	}
	if err := c.control.Reboot(t.Context(), "cp"); err == nil || !strings.Contains(err.Error(), "no node") {
		t.Errorf("reboot of cp: %v", err)
	}
}

func (c *cluster) do(machine string, action control.Action, component string) {
	c.Helper()
	if err := c.control.Do(c.Context(), machine, action, component); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) hang(t *testing.T) {
	c.await("the API server", func(ctx context.Context) error { return c.get(ctx, "nodes", "", "n1", &corev1.Node{}) })
	c.command("fault", "pause-apiserver")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := c.get(ctx, "nodes", "", "n1", &corev1.Node{}); err == nil {
		t.Error("the API server answered")
	}
	c.command("fault", "resume-apiserver")
	c.await("the API server", func(ctx context.Context) error { return c.get(ctx, "nodes", "", "n1", &corev1.Node{}) })
}

// reaches tells whether cp reaches a node: whether its kubelet takes a connection.
func (c *cluster) reaches(node string) error {
	dial := exec.Command("bash", "-c", "exec 3<>/dev/tcp/"+c.machine(node).Address+"/10250")
	ctx, cancel := context.WithTimeout(c.Context(), 2*time.Second)
	defer cancel()
	return c.control.Run(ctx, layout.ControlPlane, false, dial, nil)
}

func (c *cluster) partition(t *testing.T) {
	c.command("fault", "partition", "n2")
	if err := c.reaches("n2"); err == nil || !c.machine("n2").Partitioned {
		t.Error("n2 can still be reached")
	}
	if err := c.reaches("n1"); err != nil {
		t.Errorf("n1: %v", err)
	}
	c.command("fault", "heal", "n2")
	c.await("n2 to be reached", func(context.Context) error { return c.reaches("n2") })
}

func (c *cluster) reboot(t *testing.T) {
	before := c.machine("n1")
	c.command("fault", "reboot", "n1")
	after := c.machine("n1")
	if after.BootID == before.BootID || after.PID == before.PID || after.Boots != 2 {
		t.Errorf("before %+v, after %+v", before, after)
	}
	c.awaitPod("first", 1)
	c.await("kubelet to tell of the reboot", func(ctx context.Context) error {
		var node corev1.Node
		if err := c.get(ctx, "nodes", "", "n1", &node); err != nil {
			return err
		}
		if got := node.Status.NodeInfo.BootID; got != after.BootID {
			return fmt.Errorf("the node's boot id is %s, want %s", got, after.BootID)
		}
		return nil
	})
	c.awaitPod("second", 0)
}

// names: the name server answers in the network of the machines, from the file of the cluster's folder.
func (c *cluster) names(t *testing.T) {
	if err := os.WriteFile(c.control.Hosts(), []byte("10.200.0.1 *.vault.example.net\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"kv.vault.example.net": "10.200.0.1", "kubernetes.default.svc": "10.96.0.1"} {
		var output bytes.Buffer
		lookup := exec.Command("getent", "ahostsv4", name)
		lookup.Stdout, lookup.Dir = &output, "/"
		if err := c.control.Run(t.Context(), "n1", true, lookup, nil); err != nil || !strings.HasPrefix(output.String(), want+" ") {
			t.Errorf("%s: %q, %v; want %s", name, &output, err, want)
		}
	}
}
