package charts

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// What helm says after it has installed is about this installation.
func TestProviderNotes(t *testing.T) {
	t.Parallel()
	const ports = "8989 for health, 8898 for metrics"
	for text, says := range map[string]string{
		"":                ports,
		"logVerbosity: 2": "!does not know",
		"linux: {hostNetwrok: false}\nsecrets-store-csi-driver: {linux: {sidecar: true}}": "no effect:\n  linux.hostNetwrok\n  secrets-store-csi-driver.linux.sidecar\n",
		"secrets-store-csi-driver: {builtinProviders: [azure]}":                           "linux.enabled=false leaves it out",
		`metricsAddr: "0"`:                                       "8989 for health. linux.hostNetwork=false",
		"logVerbosity: 5":                                        "label namespace secrets pod-security",
		"fullnameOverride: a":                                    "rollout status daemonset/a --namespace secrets",
		"rbac: {install: false}":                                 "csi-secrets-store-provider-azure must be there",
		"linux: {enabled: false}":                                "no node runs the provider",
		"linux: {hostNetwork: false}":                            "!" + ports,
		"secrets-store-csi-driver: {a: 1}":                       "secrets-store-csi-driver.enableSecretRotation=true keeps them fresh",
		"secrets-store-csi-driver: {enableSecretRotation: true}": "!keeps them fresh",
		"secrets-store-csi-driver: {b: 1}":                       "secrets-store-csi-driver.syncSecret.enabled=true gives",
		"secrets-store-csi-driver: {" + syncing + "}":            "!No Kubernetes Secrets are made",
		withoutDriver:                                            "the cluster needs a driver of its own",
		"linux: {image: {repository: mcr.microsoft.com/oss/v2/azure/secrets-store/provider-azure, tag: v1.8.2}}": "ghcr.io/keymount/keymount-azure:" + appVersion(t) + " is in its place",
	} {
		given, err := yaml.Marshal(values(t, text))
		if err != nil {
			t.Fatal(err)
		}
		out, err := runHelm(t, given, "install", "test", providerChart, "--namespace", "secrets", "--dry-run=client", "--values", "-")
		if err != nil {
			t.Fatal(err)
		}
		_, notes, found := strings.Cut(string(out), "NOTES:")
		says, not := strings.CutPrefix(says, "!")
		if !found || strings.Contains(notes, says) == not || strings.Contains(notes, "%!") {
			t.Errorf("with %q the notes are to say %q: %v\n%s", text, says, !not, notes)
		}
	}
}
