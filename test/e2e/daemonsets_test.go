//go:build integration && linux

package e2e

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"keymount/test/e2e/rig"
)

const (
	driver           = "secrets-store-csi-driver" // the driver's DaemonSet, and the label app of its pods
	provider         = "csi-secrets-store-provider-azure"
	providerOfDriver = release + "-" + provider // the provider's DaemonSet
)

// Pods do not notice that the driver under them is replaced.
func (disruptive) DriverRestarted(s *rig.Scenario) {
	first, second := newWitness(s, "n1", "first", "version-1."), newWitness(s, "n2", "second", "version-1.")
	s.PutSecret("db-password", "one")
	s.Apply(databaseClass)
	s.Pod("synced", "database")
	changes := s.Changes(secretKind, "database")
	s.Kubectl("rollout", "restart", "daemonset/"+driver, "-n", rig.SystemNamespace)
	s.Kubectl("rollout", "status", "daemonset/"+driver, "-n", rig.SystemNamespace, "--timeout=90s")
	store(s, "version-2.")
	for _, w := range []*witness{first, second} {
		w.sees("version-2.")
		w.undisturbed()
	}
	if seen := changes(); len(seen) > 0 {
		s.Errorf("the Kubernetes Secret changed: %q", seen)
	}
	s.PutSecret("db-password", "two")
	awaitSecret(s, "database", map[string]string{"password": "two"})
}

// A pod that comes while there is no driver starts when there is one again.
func (disruptive) DriverAway(s *rig.Scenario) {
	old := newWitness(s, "n1", "old", "version-1.")
	away(s, driver)
	store(s, "version-2.")
	s.Class("late", `{objectName: password, objectType: secret}`)
	s.StartPod("late", "late")
	s.AwaitEvent("late", "FailedMount", "secrets-store.csi.k8s.io not found in the list of registered CSI drivers")
	back(s, driver)
	if got := s.Ready("late").File("/mnt/late/password"); got != "version-2." {
		s.Errorf("the file is %q", got)
	}
	old.sees("version-2.")
	old.undisturbed()
}

// A driver that was deleted by force, and does not go, does no harm: the next one waits for it.
func (disruptive) DriverThatDoesNotGo(s *rig.Scenario) {
	w := newWitness(s, "n1", "web", "version-1.")
	before := s.SystemPod("n1", driver)
	process := strings.TrimSpace(s.OnNode("n1", "sh", "-c", `grep -lsz -- "--registration-di[r]=" /proc/[0-9]*/cmdline | cut -d / -f 3`))
	s.OnNode("n1", "kill", "-STOP", process)
	s.Kubectl("delete", "pod", before.Name, "-n", rig.SystemNamespace, "--force", "--grace-period=0")
	s.AwaitSystemLog("n1", driver, "waiting for the driver that holds the state folder")
	s.OnNode("n1", "kill", "-CONT", process)
	if after := s.SystemPod("n1", driver); after.Name == before.Name {
		s.Errorf("pod %s is still there", after.Name)
	}
	store(s, "version-2.")
	w.sees("version-2.")
	w.undisturbed()
}

// helm upgrade to another version with other values, while pods run.
func (disruptive) DriverUpgraded(s *rig.Scenario) {
	first, second := newWitness(s, "n1", "first", "version-1."), newWitness(s, "n2", "second", "version-1.")
	image := s.SystemPod("n1", driver).Spec.Containers[0].Image
	name, _, _ := strings.Cut(image, ":")
	const next = "0.1.0-next"
	s.Alias(image, name+":"+next)
	s.Helm("upgrade", release, s.Chart(providerChart), "--namespace", rig.SystemNamespace, "--reuse-values", "--wait", "--timeout", "2m",
		"--set", "secrets-store-csi-driver.linux.image.tag="+next, "--set", "secrets-store-csi-driver.rotationPollInterval=3s")
	store(s, "version-2.")
	for _, w := range []*witness{first, second} {
		c := s.SystemPod(w.Node, driver).Spec.Containers[0]
		if c.Image != name+":"+next || !slices.Contains(c.Args, "--rotation-poll-interval=3s") {
			s.Errorf("on %s the driver is %s with %q", w.Node, c.Image, c.Args)
		}
		w.sees("version-2.")
		w.undisturbed()
	}
}

// While the provider is away mounts fail with a message that says so, and volumes keep their files. They go on by themselves.
func (disruptive) ProviderRestarted(s *rig.Scenario) {
	s.ExpectError("secrets-store: ", s.Namespace+"/late", "provider")
	w := newWitness(s, "n1", "web", "version-1.")
	away(s, providerOfDriver)
	store(s, "version-2.")
	s.Class("late", `{objectName: password, objectType: secret}`)
	s.StartPod("late", "late")
	s.AwaitEvent("late", "FailedMount", `provider "azure"`)
	s.AwaitEvent("web", "MountRotationFailed", `provider "azure"`)
	w.undisturbed()
	back(s, providerOfDriver)
	if got := s.Ready("late").File("/mnt/late/password"); got != "version-2." {
		s.Errorf("the file is %q", got)
	}
	w.sees("version-2.")
	w.undisturbed()
}

// away takes the pods of a DaemonSet from every node, until back.
func away(s *rig.Scenario, daemonSet string) {
	s.Helper()
	s.Kubectl("patch", "daemonset", daemonSet, "-n", rig.SystemNamespace, "-p", `{"spec":{"template":{"spec":{"nodeSelector":{"keymount.dev/nowhere":"yes"}}}}}`)
	s.AwaitSystem("no pod of "+daemonSet, func(pods []*corev1.Pod) error {
		for _, p := range pods {
			if strings.HasPrefix(p.Name, daemonSet+"-") {
				return fmt.Errorf("there is %s", p.Name)
			}
		}
		return nil
	})
}

func back(s *rig.Scenario, daemonSet string) {
	s.Helper()
	s.Kubectl("patch", "daemonset", daemonSet, "-n", rig.SystemNamespace, "-p", `{"spec":{"template":{"spec":{"nodeSelector":{"keymount.dev/nowhere":null}}}}}`)
	s.Kubectl("rollout", "status", "daemonset/"+daemonSet, "-n", rig.SystemNamespace, "--timeout=90s")
}
