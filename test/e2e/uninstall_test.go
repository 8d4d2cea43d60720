//go:build integration && linux

package e2e

import (
	"fmt"
	"slices"
	"strings"

	"keymount/test/e2e/rig"
)

// Folders of nodes where driver and provider have something.
const (
	registryDir  = "/var/lib/kubelet/plugins_registry"
	pluginDir    = "/var/lib/kubelet/plugins/csi-secrets-store"
	providersDir = "/var/run/secrets-store-csi-providers"
)

// bareCluster makes a cluster that never had a driver.
func bareCluster(s *rig.Scenario) {
	clearCluster(s)
	removeDefinitions(s)
}

// helm uninstall leaves the definitions, what users made, and files under the running pods; installing again goes on from there.
func (uninstall) AndInstallAgain(s *rig.Scenario) {
	s.Kubectl("wait", "--for=create", "serviceaccount/default", "configmap/kube-root-ca.crt", "--namespace", s.Namespace) // which every namespace gets
	before := s.Inventory()
	folders := map[string][]string{} // other providers may have left a socket
	for _, node := range s.Nodes() {
		for _, dir := range []string{registryDir, providersDir} {
			folders[node+dir] = entries(s, node, dir)
		}
	}
	installProvider(s)
	witnesses := aWitnessOnEachNode(s, "version-1.")
	s.Class("leaving", `{objectName: user, objectType: secret}`)
	leaving := s.Pod("leaving", "leaving")
	s.Helm("uninstall", release, "--namespace", rig.SystemNamespace)

	expected := []string{
		"APIService /v1.secrets-store.csi.x-k8s.io", "APIService /v1alpha1.secrets-store.csi.x-k8s.io",
		"CustomResourceDefinition /secretproviderclasses.secrets-store.csi.x-k8s.io",
		"CustomResourceDefinition /secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io",
		"Pod " + s.Namespace + "/leaving",
		"SecretProviderClass " + s.Namespace + "/leaving", "SecretProviderClass " + s.Namespace + "/web",
		"SecretProviderClassPodStatus " + s.Namespace + "/leaving-" + s.Namespace + "-leaving",
	}
	for _, w := range witnesses {
		expected = append(expected, "Pod "+s.Namespace+"/"+w.Name, "SecretProviderClassPodStatus "+s.Namespace+"/"+w.Name+"-"+s.Namespace+"-web")
	}
	slices.Sort(expected)
	s.Await("all objects of the installation to be gone", func() error {
		after := s.Inventory()
		if more := after.Without(before); !slices.Equal(more, expected) {
			return fmt.Errorf("what is there more than before the installation is\n  %s\nwant\n  %s", strings.Join(more, "\n  "), strings.Join(expected, "\n  "))
		}
		for _, lost := range before.Without(after) {
			if !strings.Contains(lost, " e2e-") && !strings.HasPrefix(lost, "Namespace /e2e-") { // of earlier scenarios
				return fmt.Errorf("%s was there before the installation, and is not any more", lost)
			}
		}
		return nil
	})
	for _, node := range s.Nodes() {
		checkFolder(s, node, registryDir, folders[node+registryDir]...)
		checkFolder(s, node, providersDir, folders[node+providersDir]...)
		checkFolder(s, node, pluginDir, "keymount-volumes", "keymount.lock") // as docs/driver.md says
	}

	s.Await("kubelets to know of no driver", func() error {
		if known := s.Kubectl("get", "csinodes", "--output", "jsonpath={.items[*].spec.drivers[*].name}"); known != "" {
			return fmt.Errorf("they know %s", known)
		}
		return nil
	})

	// A pod that is deleted now waits for somebody who can unmount its volume.
	s.Delete("v1/Pod", "leaving")
	if len(leaving.Mounts()) == 0 {
		s.Error("without a driver the volume of a deleted pod is gone")
	}
	installProvider(s)
	leaving.AwaitNothingLeft()
	store(s, "version-2.")
	for _, w := range witnesses {
		w.sees("version-2.")
		w.undisturbed()
		w.Delete()
		w.AwaitNothingLeft()
	}
	for _, node := range s.Nodes() {
		checkFolder(s, node, pluginDir+"/keymount-volumes")
	}
	if left := s.Kubectl("get", "secretproviderclasspodstatuses", "--namespace", s.Namespace, "--output", "name"); left != "" {
		s.Errorf("status objects are left:\n%s", left)
	}
}

// checkFolder fails unless a folder of the node holds exactly that.
func checkFolder(s *rig.Scenario, node, dir string, want ...string) {
	s.Helper()
	if got := entries(s, node, dir); !slices.Equal(got, want) {
		s.Errorf("%s of node %s holds %q, want %q", dir, node, got, want)
	}
}

// entries are the names in a folder of the node, none if there is no such folder.
func entries(s *rig.Scenario, node, dir string) []string {
	s.Helper()
	return strings.Fields(s.OnNode(node, "sh", "-c", `[ ! -e "$0" ] || ls -A "$0"`, dir))
}
