//go:build integration && linux

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"keymount/test/e2e/rig"
)

// Where the images of this repository stand in for upstream's: everything else of that installation is upstream's, its arguments, mounts, order of containers
// and sidecars.
const (
	upstreamCharts = "testdata/upstream-charts/"

	upstreamMirror   = "mcr.microsoft.com/oss/v2/kubernetes-csi/"
	upstreamRegistry = "registry.k8s.io/sig-storage/"
	upstreamProvider = "mcr.microsoft.com/oss/v2/azure/secrets-store/provider-azure:v1.8.2"
)

// The images that stand in, as test/e2e/run makes them.
const (
	driverImage    = "ghcr.io/keymount/keymount-driver:0.1.0"
	providerImage  = "ghcr.io/keymount/keymount-azure:0.1.0"
	registrarImage = "docker.io/keymount-e2e/registrar:1"
	livenessImage  = "docker.io/keymount-e2e/livenessprobe:1"
)

// What a user of upstream's has set; the authority of the vault is mounted as upstream's documentation has it.
const upstreamValues = `
logVerbosity: 2
linux:
  tolerations: [{key: example.com/dedicated, operator: Exists}]
  updateStrategy: {rollingUpdate: {maxUnavailable: 2}}
  volumes: [{name: authority, configMap: {name: emulator-ca}}]
  volumeMounts: [{name: authority, mountPath: /etc/pki/tls/certs, readOnly: true}]
secrets-store-csi-driver:
  logVerbosity: 2
  enableSecretRotation: true
  rotationPollInterval: 3s
  syncSecret: {enabled: true}
  tokenRequests:
  - audience: api://AzureADTokenExchange
  - audience: vault
  linux:
    tolerations: [{key: example.com/dedicated, operator: Exists}]
    updateStrategy: {rollingUpdate: {maxUnavailable: 2}}
`

// installUpstream makes a cluster as users of upstream's have it, with its definitions. When the phase ends, nothing of it is left.
func installUpstream(s *rig.Scenario) {
	for image, names := range map[string][]string{
		driverImage:    {upstreamMirror + "secrets-store/driver:v1.5.6"},
		providerImage:  {upstreamProvider},
		registrarImage: {upstreamMirror + "csi-node-driver-registrar:v2.14.0", upstreamRegistry + "csi-node-driver-registrar:v2.16.0"},
		livenessImage:  {upstreamMirror + "livenessprobe:v2.15.0", upstreamRegistry + "livenessprobe:v2.18.0"},
	} {
		for _, name := range names {
			s.Alias(image, name)
		}
	}
	clearCluster(s)
	s.Cleanup(func() {
		clearCluster(s)
		removeDefinitions(s)
	})
	removeDefinitions(s)
	s.Helm("install", release, s.Chart(upstreamCharts+providerChart), "--namespace", rig.SystemNamespace, "--values", s.Values(upstreamValues), "--wait", "--timeout", "3m")
}

// clearCluster removes the driver and the provider, however they were installed.
func clearCluster(s *rig.Scenario) {
	s.Helper()
	s.OnlyRelease("")
	removePlainManifests(s)
}

// removeDefinitions removes all classes with their kind: the next chart brings its own definitions.
func removeDefinitions(s *rig.Scenario) {
	s.Helper()
	s.Kubectl("delete", "crd", "--ignore-not-found", "secretproviderclasses.secrets-store.csi.x-k8s.io", "secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io")
}

// Upstream's DaemonSets run with nothing but the images changed.
func (upgrade) AsUpstream(s *rig.Scenario) {
	checkUserValues(s)
	checkContainers(s, "secrets-store-csi-driver", "node-driver-registrar secrets-store liveness-probe")
	witnesses := aWitnessOnEachNode(s, "version-1.")
	// The rights that upstream's chart grants are enough for a Kubernetes Secret that follows the vault.
	s.PutSecret("db-password", "version-1.")
	s.Apply(databaseClass)
	s.Pod("synced", "database")
	awaitSecret(s, "database", map[string]string{"password": "version-1."})
	s.PutSecret("db-password", "version-2.")
	store(s, "version-2.")
	for _, w := range witnesses {
		w.sees("version-2.")
		w.undisturbed()
	}
	awaitSecret(s, "database", map[string]string{"password": "version-2."})
	for _, ip := range strings.Fields(s.Kubectl("get", "pods", "--namespace", rig.SystemNamespace, "--selector", "app=secrets-store-csi-driver", "--output", "jsonpath={.items[*].status.podIP}")) {
		if err := getHealth("http://" + ip + ":9808/healthz"); err != nil {
			s.Errorf("the liveness probe of upstream's sidecar: %v", err)
		}
	}
	// Without a token of the pod's own, too.
	s.Class("principal", `{objectName: user, objectType: secret}`)
	if got := s.Pod("principal", "principal").File("/mnt/principal/user"); got != "version-2." {
		s.Errorf("the file is %q", got)
	}
}

func getHealth(url string) error {
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, said)
	}
	return err
}

// aWitnessOnEachNode starts one on every node, told the version.
func aWitnessOnEachNode(s *rig.Scenario, version string) []*witness {
	s.Helper()
	var all []*witness
	for _, node := range s.Nodes() {
		all = append(all, newWitness(s, node, "web-"+node, version))
	}
	return all
}

// checkContainers fails unless the DaemonSet has these containers in this order.
func checkContainers(s *rig.Scenario, daemonSet, want string) {
	s.Helper()
	got := s.Kubectl("get", "daemonset", daemonSet, "--namespace", rig.SystemNamespace, "--output", "jsonpath={.spec.template.spec.containers[*].name}")
	if got != want {
		s.Errorf("DaemonSet %s has the containers %s, want %s", daemonSet, got, want)
	}
}

// checkUserValues fails unless what the user had set is in force.
func checkUserValues(s *rig.Scenario) {
	s.Helper()
	const toleration = `[{"key":"example.com/dedicated","operator":"Exists"}]`
	for _, check := range []struct{ what, object, path, want string }{
		{"enableSecretRotation", "csidriver/secrets-store.csi.k8s.io", ".spec.requiresRepublish", "true"},
		{"tokenRequests", "csidriver/secrets-store.csi.k8s.io", ".spec.tokenRequests[*].audience", "api://AzureADTokenExchange vault"},
		{"syncSecret.enabled", "clusterrolebinding/secretprovidersyncing-rolebinding", ".subjects[*].name", "secrets-store-csi-driver"},
		{"linux.tolerations of the driver", "daemonset/secrets-store-csi-driver", ".spec.template.spec.tolerations", toleration},
		{"linux.tolerations of the provider", "daemonset/csi-csi-secrets-store-provider-azure", ".spec.template.spec.tolerations", toleration},
		{"linux.updateStrategy of the driver", "daemonset/secrets-store-csi-driver", ".spec.updateStrategy.rollingUpdate.maxUnavailable", "2"},
	} {
		if got := s.Kubectl("get", check.object, "--namespace", rig.SystemNamespace, "--output", "jsonpath={"+check.path+"}"); got != check.want {
			s.Errorf("%s: %s has %s, want %s", check.what, check.object, got, check.want)
		}
	}
	args := s.Kubectl("get", "daemonset/secrets-store-csi-driver", "--namespace", rig.SystemNamespace, "--output", `jsonpath={.spec.template.spec.containers[?(@.name=="secrets-store")].args}`)
	for _, want := range []string{`"--enable-secret-rotation=true"`, `"--rotation-poll-interval=3s"`} {
		if !strings.Contains(args, want) {
			s.Errorf("the driver's arguments are %s, without %s", args, want)
		}
	}
}
