//go:build integration && linux

package e2e

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"keymount/test/e2e/cluster/control"
	"keymount/test/e2e/rig"
)

// Kubelet forgets drivers when it ends, and hears of this one again without anybody's help.
func (disruptive) KubeletRestarted(s *rig.Scenario) {
	w := newWitness(s, "n1", "web", "version-1.")
	s.Fault("n1", control.Kill, "kubelet")
	store(s, "version-2.")
	next := newWitness(s, "n1", "next", "version-2.")
	if got := s.Kubectl("get", "csinode", "n1", "-o", "jsonpath={.spec.drivers[*].name}"); got != "secrets-store.csi.k8s.io" {
		s.Errorf("on n1 these drivers are registered: %q", got)
	}
	w.sees("version-2.")
	for _, pod := range []*witness{w, next} {
		pod.undisturbed()
	}
}

// After a reboot nothing is mounted, and all that is remembered of volumes is of an earlier life: pods come back with what the vault has now.
func (disruptive) NodeRebooted(s *rig.Scenario) {
	for _, container := range []string{"kube-system/" + driver, "kube-system/" + providerOfDriver, s.Namespace + "/web/main"} {
		s.ExpectRestart(container)
	}
	s.MayLogError("secrets-store: ", s.Namespace+"/web") // the provider may be later than the driver
	w := newWitness(s, "n1", "web", "version-1.")
	store(s, "version-2.")
	s.Reboot("n1")
	s.AwaitPod("web", func(p *corev1.Pod) error {
		for _, c := range p.Status.ContainerStatuses {
			if c.RestartCount == 0 || !c.Ready {
				return fmt.Errorf("after %d restarts its container is ready: %t", c.RestartCount, c.Ready)
			}
		}
		return nil
	})
	s.AwaitSystemLog("n1", driver, "pod="+s.Namespace+"/web class="+s.Namespace+"/web files=2") // mounted, not refreshed
	w.sees("version-2.")
	if text := w.Log(); strings.Contains(text, "torn") || strings.Count(text, "now version-1.") > 1 {
		s.Errorf("pod %s has seen:\n%s", w.Name, text)
	}
	if got := w.File("/mnt/web/user"); got != "version-2." {
		s.Errorf("the file is %q", got)
	}
	store(s, "version-3.")
	w.sees("version-3.")
}

// Neither a drained node nor a pod that is deleted by force keeps anything of a volume.
func (disruptive) NodeDrained(s *rig.Scenario) {
	drained, forced := newWitness(s, "n1", "drained", "version-1."), newWitness(s, "n2", "forced", "version-1.")
	s.Kubectl("drain", "n1", "--ignore-daemonsets", "--force", "--timeout=90s")
	s.Kubectl("uncordon", "n1")
	s.Kubectl("delete", "pod", forced.Name, "-n", s.Namespace, "--force", "--grace-period=0")
	for _, w := range []*witness{drained, forced} {
		w.AwaitNothingLeft()
	}
	s.Await("the status objects to be gone", func() error {
		if got := s.Kubectl("get", "secretproviderclasspodstatuses", "-n", s.Namespace, "-o", "name"); got != "" {
			return errors.New("there is " + got)
		}
		return nil
	})
}
