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
	providerDaemonSet struct{} // driver and provider as the provider's chart installs them, in parallel
)

func TestEndToEnd(t *testing.T) {
	suite := rig.Start(t)
	suite.Parallel("provider", installProvider, providerDaemonSet{})
}

const (
	release       = "csi"
	providerChart = "csi-secrets-store-provider-azure"
)

// installProvider installs the provider's chart, which brings the driver along, as most clusters with Azure have it.
func installProvider(s *rig.Scenario) {
	s.Install(release, s.Chart(providerChart), `
logVerbosity: 2
secrets-store-csi-driver:
  logVerbosity: 2
  enableSecretRotation: true
  rotationPollInterval: 5s
  tokenRequests:
  - audience: api://AzureADTokenExchange
  serviceAccountAnnotations: [azure.workload.identity/client-id, azure.workload.identity/tenant-id]
`)
}
