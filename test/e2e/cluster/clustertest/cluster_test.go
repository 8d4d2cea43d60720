//go:build integration && linux

// Package clustertest runs clusters for real: a pod gets to run in one, faults do what they say, and whatever ends a cluster,
// nothing is left of it. It takes root and the programs of test/binaries, so it is no part of `make test`.
//
// It holds tests only, and uses the cluster as others do: by its commands and by package control.
package clustertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"keymount/test/binaries"
	"keymount/test/e2e/cluster/control"
	"keymount/test/e2e/cluster/internal/config"
	"keymount/test/e2e/cluster/internal/layout"
	"keymount/test/integration/await"
)

// A cluster is a running one.
type cluster struct {
	*testing.T
	program string
	dir     layout.Dir
	before  snapshot
	control *control.Client
	api     dynamic.Interface
}

// programEnv names the program, which TestMain compiles once.
const programEnv = "KEYMOUNT_CLUSTER_PROGRAM"

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // all tests skip themselves
	}
	dir, err := os.MkdirTemp("", "cluster-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "making a folder for the program:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "cluster")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", "integration", "-o", program, "keymount/test/e2e/cluster")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "compiling the program: %v: %s\n", err, output)
		return 1
	}
	if err := os.Setenv(programEnv, program); err != nil {
		fmt.Fprintln(os.Stderr, "naming the program:", err)
		return 1
	}
	return m.Run()
}

// prepare makes a cluster's folder, and looks around before there is a cluster.
func prepare(t *testing.T) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	c := &cluster{T: t, program: os.Getenv(programEnv), dir: folder(t)}
	c.before = look(t, c.dir)
	return c
}

// start brings a cluster up for the test.
func start(t *testing.T, nodes int) *cluster {
	t.Helper()
	c := prepare(t)
	t.Cleanup(func() { c.command("down") })
	t.Log(c.command("up", "--nodes", fmt.Sprint(nodes)))
	var err error
	if c.control, err = control.Dial(string(c.dir)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.control.Close)
	admin, err := clientcmd.BuildConfigFromFlags("", c.control.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if c.api, err = dynamic.NewForConfig(admin); err != nil {
		t.Fatal(err)
	}
	return c
}

// folder returns a cluster's folder whose path is longer than a socket's may be.
func folder(t *testing.T) layout.Dir {
	t.Helper()
	dir, err := layout.Find(filepath.Join(t.TempDir(), strings.Repeat("long", 30)))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// command runs a command of the program, and returns what it printed.
func (c *cluster) command(args ...string) string {
	c.Helper()
	output, err := exec.Command(c.program, append(args, "--dir", string(c.dir))...).CombinedOutput()
	if err != nil {
		c.Errorf("cluster %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	return string(output)
}

func (c *cluster) status() control.Status {
	c.Helper()
	status, err := c.control.Status(c.Context())
	if err != nil {
		c.Fatal(err)
	}
	return status
}

func (c *cluster) machine(name string) control.Machine {
	c.Helper()
	m, err := c.status().Machine(name)
	if err != nil {
		c.Fatal(err)
	}
	return m
}

func (c *cluster) await(what string, ask func(context.Context) error) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), 2*time.Minute)
	defer cancel()
	if err := await.For(ctx, what, ask); err != nil {
		c.Fatal(err)
	}
}

// runPod makes a pod on the node and waits until it runs. Its image is the one that every node has.
func (c *cluster) runPod(name, node string) {
	c.Helper()
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.PodSpec{
			NodeName:   node,
			Containers: []corev1.Container{{Name: "c", Image: config.PauseImage, ImagePullPolicy: corev1.PullNever}},
		},
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pod)
	if err != nil {
		c.Fatal(err)
	}
	pods := c.api.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace("default")
	c.await("pod "+name+" to be made", func(ctx context.Context) error { // its service account is made by a controller
		_, err := pods.Create(ctx, &unstructured.Unstructured{Object: content}, metav1.CreateOptions{})
		return err
	})
	c.awaitPod(name, 0)
}

// awaitPod waits until the pod's container is ready after that many restarts.
func (c *cluster) awaitPod(name string, restarts int32) {
	c.Helper()
	c.await(fmt.Sprintf("pod %s to run, restarted %d times", name, restarts), func(ctx context.Context) error {
		var pod corev1.Pod
		if err := c.get(ctx, "pods", "default", name, &pod); err != nil {
			return err
		}
		if len(pod.Status.ContainerStatuses) == 0 {
			return fmt.Errorf("the pod is %s", pod.Status.Phase)
		}
		if s := pod.Status.ContainerStatuses[0]; !s.Ready || s.RestartCount != restarts {
			return fmt.Errorf("the pod is %s, its container %+v", pod.Status.Phase, s)
		}
		return nil
	})
}

func (c *cluster) get(ctx context.Context, resource, namespace, name string, into any) error {
	object, err := c.api.Resource(corev1.SchemeGroupVersion.WithResource(resource)).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	return runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, into)
}

// gone fails the test unless all that was there at during goes away.
func (c *cluster) gone(during snapshot) {
	c.Helper()
	if len(during.processes) < 10 || len(during.cgroups) == 0 {
		c.Fatalf("the comparison would see nothing: %+v", during)
	}
	c.await("the cluster to be gone", func(context.Context) error {
		if left := remains(c.T, c.dir, c.before, during); len(left) > 0 {
			return errors.New("this is left:\n" + strings.Join(left, "\n"))
		}
		return nil
	})
	if info, err := os.Stat(c.dir.Log("n1", "kubelet")); err != nil || info.Size() == 0 {
		c.Errorf("the logs are to stay: %v", err)
	}
}

func TestRootKilledKeeperLeavesNothing(t *testing.T) {
	c := start(t, 1)
	c.runPod("runs", "n1")
	during := look(t, c.dir)
	if err := syscall.Kill(c.control.Keeper(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.gone(during)
	if output := c.command("up"); !strings.Contains(output, "cluster ready") {
		t.Errorf("the folder cannot be used again: %s", output)
	}
	during = look(t, c.dir)
	c.command("down")
	c.gone(during)
}

// The sweeper is the last that is needed to clean up: a cluster without one does not go on.
func TestRootKilledSweeperEndsTheCluster(t *testing.T) {
	c := start(t, 1)
	during := look(t, c.dir)
	if err := syscall.Kill(c.status().Sweeper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.gone(during)
}

// A start that fails says why, and leaves nothing.
func TestRootFailedStart(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image.tar")
	writeFile(t, image, "no tar", 0o644)
	assets := t.TempDir()
	for _, program := range []string{"etcd", "kube-apiserver", "kubectl"} {
		writeFile(t, filepath.Join(assets, program), "#!/bin/sh\necho this is no "+program+"\nexit 3\n", 0o755)
	}
	for _, tc := range []struct {
		name, env string
		args      []string
		want      []string
	}{
		{"an image that is none", "", []string{"--image", image}, []string{"importing image.tar into n1"}},
		{"an etcd that is none", binaries.AssetsEnv + "=" + assets, nil, []string{"etcd on cp ends again and again (exit code 3)", "this is no etcd", "etcd.log"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := prepare(t)
			cmd := exec.Command(c.program, append([]string{"up", "--dir", string(c.dir)}, tc.args...)...)
			cmd.Env = append(os.Environ(), tc.env)
			output, err := cmd.CombinedOutput()
			if err == nil {
				t.Error("it started")
			}
			for _, want := range tc.want {
				if !bytes.Contains(output, []byte(want)) {
					t.Errorf("%q is not said in: %s", want, output)
				}
			}
			if left := remains(t, c.dir, c.before, snapshot{}); len(left) > 0 {
				t.Errorf("this is left:\n%s", strings.Join(left, "\n"))
			}
		})
	}
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}
