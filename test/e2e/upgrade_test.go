//go:build integration && linux

package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"

	"keymount/test/e2e/rig"
)

// A release of upstream's chart becomes one of this repository's, goes back and forward again, under running pods and with what its users had set.
func (upgrade) HelmUpgradeAndRollback(s *rig.Scenario) {
	witnesses := aWitnessOnEachNode(s, "version-1.")
	first := revision(s)
	s.PutSecret("db-password", "version-1.")
	s.Apply(databaseClass)
	s.Pod("synced", "database")
	secret := awaitSecret(s, "database", map[string]string{"password": "version-1."})
	serves := func(chart, containers, version string) {
		s.Helper()
		if got := revision(s); got.Chart != chart {
			s.Errorf("the release has chart %s, want %s", got.Chart, chart)
		}
		checkContainers(s, "secrets-store-csi-driver", containers)
		checkUserValues(s)
		s.PutSecret("db-password", version)
		store(s, version)
		for _, w := range witnesses {
			w.sees(version)
			w.undisturbed()
		}
		if now := awaitSecret(s, "database", map[string]string{"password": version}); now.UID != secret.UID {
			s.Error("the Kubernetes Secret was made anew")
		}
	}

	helmUpgrade(s)
	serves(ours(s), "secrets-store", "version-2.")
	s.Helm("rollback", release, first.Revision, "--namespace", rig.SystemNamespace, "--wait", "--timeout", "3m")
	serves(first.Chart, "node-driver-registrar secrets-store liveness-probe", "version-3.")
	// Forward again, and this time with the sidecars, and the new definitions, whose condition tells whether a volume is up to date.
	s.Kubectl("apply", "--server-side", "--force-conflicts", "--filename", filepath.Join(s.Chart(driverChart), "crds"))
	helmUpgrade(s, "--set", "secrets-store-csi-driver.linux.sidecars=true")
	serves(ours(s), "node-driver-registrar secrets-store liveness-probe", "version-4.")
	for _, w := range witnesses {
		awaitUpToDate(s, w.Name, "True")
	}
}

// helmUpgrade is what the README says.
func helmUpgrade(s *rig.Scenario, more ...string) {
	s.Helper()
	s.Helm(append([]string{"upgrade", release, s.Chart(providerChart), "--namespace", rig.SystemNamespace, "--reuse-values", "--wait", "--timeout", "3m"}, more...)...)
}

// A helmRelease is a line of helm list.
type helmRelease struct{ Name, Revision, Status, Chart string }

// revision is the only release, as it is now.
func revision(s *rig.Scenario) helmRelease {
	s.Helper()
	var all []helmRelease
	if err := json.Unmarshal([]byte(s.Helm("list", "--all-namespaces", "--output", "json")), &all); err != nil {
		s.Fatalf("reading helm's list: %v", err)
	}
	if len(all) != 1 || all[0].Name != release || all[0].Status != "deployed" {
		s.Fatalf("the releases are %+v", all)
	}
	return all[0]
}

// ours is the provider's chart of this repository with its version, as helm list shows it.
func ours(s *rig.Scenario) string {
	s.Helper()
	for line := range strings.Lines(s.Helm("show", "chart", s.Chart(providerChart))) {
		if version, ok := strings.CutPrefix(line, "version: "); ok {
			return providerChart + "-" + strings.TrimSpace(version)
		}
	}
	s.Fatal("the chart has no version")
	return ""
}
