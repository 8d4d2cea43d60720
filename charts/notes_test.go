package charts

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// What helm says after it has installed is about this installation.
func TestDriverNotes(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"":                                    "!does not know",
		"rbac: {instal: true}":                "does not know these values, and they have no effect:\n  rbac.instal\n",
		"a: {b: 1}\nlinux: {crds: {a: 1}}":    "no effect:\n  a\n\n",
		"windows: {image: {tag: a}}":          "!does not know",
		"builtinProviders: []":                "It needs a provider",
		"builtinProviders: [azure]":           "Providers in the driver itself: azure.",
		"linux: {enabled: false}":             "no node runs it",
		"rbac: {install: false}":              "secrets-store-csi-driver needs the rights",
		"logVerbosity: 2":                     "label namespace secrets pod-security",
		"fullnameOverride: a":                 "rollout status daemonset/a --namespace secrets",
		"enableSecretRotation: false":         "enableSecretRotation=true keeps them fresh",
		"{" + syncing + "}":                   "!No Kubernetes Secrets are made",
		"syncSecret: {enabled: false}":        "; syncSecret.enabled=true gives",
		"syncSecret: null":                    "; syncSecret.enabled=true gives",
		"preventPodSchedulingIfMissing: true": "preventPodSchedulingIfMissing ",
		"linux: {image: {repository: registry.k8s.io/csi-secrets-store/driver, tag: v1.6.0}}": "ghcr.io/keymount/keymount-driver:" + appVersion(t) + " is in its place",
	} {
		values, err := yaml.Marshal(values(t, text))
		if err != nil {
			t.Fatal(err)
		}
		out, err := runHelm(t, values, "install", "test", driverChart, "--namespace", "secrets", "--dry-run=client", "--values", "-")
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
