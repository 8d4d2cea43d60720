//go:build integration && linux

// Package e2e is what users do with Keymount, on a real cluster: charts installed with helm, manifests applied, files read by pods.
//
// A scenario is a method of one of the phases below, in a file of its own; nothing else lists it. Scenarios of a parallel phase run at the same time and keep
// apart by their namespaces and vaults. make e2e runs all of them; test/e2e/run --help tells how to run one.
package e2e

import (
	"testing"

	"keymount/test/e2e/rig"
)

// Phases are run in this order. Each prepares what it needs, whatever was before, so that any one can be run alone.
type (
	everyInstallation struct{}                    // what works the same with each of them, embedded in theirs
	providerDaemonSet struct{ everyInstallation } // driver and provider as the provider's chart installs them, in parallel
	disruptive        struct{}                    // on the same installation: parts of the cluster fail, one after the other
	builtinProvider   struct{ everyInstallation } // the driver's chart alone, which does the provider's work, in parallel
	figures           struct{ *measured }         // the same, measured, with nothing else on the cluster
	upgrade           struct{}                    // from upstream's chart and back, and other ways to install
	uninstall         struct{}                    // on a cluster that never had a driver
)

func TestEndToEnd(t *testing.T) {
	suite := rig.Start(t)
	suite.Parallel("provider", installProvider, providerDaemonSet{})
	suite.Serial("disruptive", installProvider, disruptive{})
	suite.Parallel("builtin", installBuiltin, builtinProvider{})
	results := new(measured)
	suite.Serial("figures", installFigures, figures{results})
	results.write(t)
	suite.Serial("upgrade", installUpstream, upgrade{})
	suite.Serial("uninstall", bareCluster, uninstall{})
}

const (
	release       = "csi"
	providerChart = "csi-secrets-store-provider-azure"

	driverRelease = "csi-secrets-store"
	driverChart   = "secrets-store-csi-driver"
)

// installProvider installs the provider's chart, which brings the driver along, as most clusters with Azure have it.
func installProvider(s *rig.Scenario) {
	s.OnlyRelease(release)
	s.Install(release, s.Chart(providerChart), `
logVerbosity: 2
secrets-store-csi-driver:
  logVerbosity: 2
  enableSecretRotation: true
  rotationPollInterval: 5s
  syncSecret: {enabled: true}
  tokenRequests:
  - audience: api://AzureADTokenExchange
  serviceAccountAnnotations: [azure.workload.identity/client-id, azure.workload.identity/tenant-id]
`)
}

// installBuiltin installs the driver's chart with the Azure provider in the driver's process: one container on each node, and nothing else.
func installBuiltin(s *rig.Scenario) {
	s.OnlyRelease(driverRelease)
	s.Install(driverRelease, s.Chart(driverChart), `
logVerbosity: 2
builtinProviders: [azure]
enableSecretRotation: true
rotationPollInterval: 5s
syncSecret: {enabled: true}
tokenRequests:
- audience: api://AzureADTokenExchange
serviceAccountAnnotations: [azure.workload.identity/client-id, azure.workload.identity/tenant-id]
`)
}
