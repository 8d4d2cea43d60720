//go:build integration && linux

package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// SystemPod waits for the Ready pod of the system with that label app on a node.
func (s *Scenario) SystemPod(node, app string) *corev1.Pod {
	s.Helper()
	var found *corev1.Pod
	s.AwaitSystem(fmt.Sprintf("the pod of %s on %s to be Ready", app, node), func(pods []*corev1.Pod) error {
		for _, p := range pods {
			if p.Labels["app"] == app && p.Spec.NodeName == node && p.DeletionTimestamp == nil && ready(p) {
				found = p
				return nil
			}
		}
		return errors.New("there is none")
	})
	return found
}

// AwaitSystem waits until the pods of the system are as ask wants them.
func (s *Scenario) AwaitSystem(what string, ask func(pods []*corev1.Pod) error) {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	err := s.pods.await(ctx, func() error {
		return ask(slices.DeleteFunc(s.pods.list(), func(p *pod) bool { return p.Namespace != SystemNamespace }))
	})
	if err != nil {
		s.Fatalf("waiting for %s: %v\n%s", what, err, s.system())
	}
}

// AwaitSystemLog waits until a pod of the system with that label app on a node, Ready or not, has logged a line with the text.
func (s *Scenario) AwaitSystemLog(node, app, text string) {
	s.Helper()
	s.Await(fmt.Sprintf("a pod of %s on %s to log %q", app, node, text), func() error {
		for _, p := range s.pods.list() {
			if p.Namespace != SystemNamespace || p.Labels["app"] != app || p.Spec.NodeName != node {
				continue
			}
			if log, err := s.kubectl("logs", "-n", p.Namespace, p.Name); err == nil && strings.Contains(log, text) {
				return nil
			}
		}
		return errors.New("none has")
	})
}

// Log is what the pod's first container and those before it under its name have printed, from the node's own files: it needs no API server and no kubelet.
func (p *Pod) Log() string {
	p.s.Helper()
	files, err := filepath.Glob(filepath.Join(p.s.Cluster.PodLogs(p.Node), p.s.Namespace+"_"+p.Name+"_"+p.UID, "main", "*.log"))
	if err != nil || len(files) == 0 {
		p.s.Fatalf("pod %s on %s has no log: %v", p.Name, p.Node, err)
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(restart(a), restart(b)) })
	var all strings.Builder
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			p.s.Fatalf("reading the log of pod %s: %v", p.Name, err)
		}
		for line := range strings.Lines(string(text)) {
			if fields := strings.SplitN(line, " ", 4); len(fields) == 4 { // time, stream, whether it is whole, text
				all.WriteString(fields[3])
			}
		}
	}
	return all.String()
}

// restart is the number of a container's log: how often the container had been started before.
func restart(file string) int {
	n, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(file), ".log")) // kubelet gives no other names
	return n
}

// AwaitLog waits until the pod has printed a line.
func (p *Pod) AwaitLog(line string) {
	p.s.Helper()
	p.s.Await(fmt.Sprintf("pod %s to print %q", p.Name, line), func() error {
		if text := p.Log(); !strings.Contains("\n"+text, "\n"+line+"\n") {
			return fmt.Errorf("it has printed:\n%s", text[max(0, len(text)-2000):])
		}
		return nil
	})
}

// AwaitNothingLeft waits until the node knows nothing of the pod any more: no mount, no folder, and nothing that mentions it in the folder of the driver.
func (p *Pod) AwaitNothingLeft() {
	p.s.Helper()
	const kubelet = "/var/lib/kubelet"
	p.s.Await(fmt.Sprintf("pod %s to leave nothing on %s", p.Name, p.Node), func() error {
		ctx, cancel := p.s.bound() // its own, so that the last answer is not that the time is over
		defer cancel()
		out, err := p.s.onNode(ctx, p.Node, "sh", "-c", `grep -F "$1" /proc/self/mountinfo; ls -d "$0/pods/$1"; grep -rlsF "$1" "$0/plugins"; true`, kubelet, p.UID)
		if err == nil && out != "" {
			return fmt.Errorf("there is:\n%s", out)
		}
		return err
	})
}

// AwaitPod waits until a pod of the scenario is as ask wants it.
func (s *Scenario) AwaitPod(name string, ask func(*corev1.Pod) error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), Bound)
	defer cancel()
	err := s.pods.await(ctx, func() error {
		p := s.pods.get(s.Namespace + "/" + name)
		if p == nil {
			return errors.New("there is no such pod")
		}
		return ask(p)
	})
	if err != nil {
		s.Fatalf("waiting for pod %s: %v\n%s", name, err, s.describe())
	}
}
