//go:build integration && linux

package rig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// caMap is the ConfigMap with the emulator's authority.
const caMap = "emulator-ca"

// trust makes the emulator's authority known in a namespace.
func (s *Suite) trust(ctx context.Context, namespace string) error {
	text := strings.ReplaceAll(strings.TrimSpace(string(s.Emulator.CertPEM())), "\n", "\n    ")
	return s.api.apply(ctx, namespace, `
apiVersion: v1
kind: ConfigMap
metadata: {name: `+caMap+`}
data:
  ca.pem: |
    `+text+`
`)
}

// trusting are values with which the pods of the repository's charts trust the emulator, and are rolled out anew when its authority or the images are
// others under the same name.
func (s *Suite) trusting() string {
	sum := sha256.Sum256(append([]byte(s.build), s.Emulator.CertPEM()...))
	linux := `{
  podAnnotations: {keymount.dev/e2e-build: "` + hex.EncodeToString(sum[:8]) + `"},
  env: [{name: SSL_CERT_FILE, value: /emulator/ca.pem}],
  volumes: [{name: ` + caMap + `, configMap: {name: ` + caMap + `}}],
  volumeMounts: [{name: ` + caMap + `, mountPath: /emulator, readOnly: true}]}
`
	return "linux: " + linux + "secrets-store-csi-driver:\n  linux: " + strings.ReplaceAll(linux, "\n", "\n    ") + "\n"
}

// Chart is the path of one of the repository's charts.
func (s *Suite) Chart(name string) string { return filepath.Join(s.charts, name) }

// Install installs one of the repository's charts, or upgrades it, with values in YAML, and waits until its pods are ready. The pods trust the emulator. More
// arguments of helm upgrade may follow.
func (s *Scenario) Install(release, chart, values string, args ...string) {
	s.Helper()
	s.Helm(append([]string{"upgrade", "--install", release, chart, "--namespace", SystemNamespace, "--values", s.file(s.trusting()), "--values", s.file(values),
		"--wait", "--timeout", "3m"}, args...)...)
}

// file puts a text into a file that is there until the scenario ends.
func (s *Scenario) file(text string) string {
	s.Helper()
	name := filepath.Join(s.TempDir(), "values.yaml") // a folder of its own each time
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	return name
}

// Helm runs helm as the administrator and returns what it printed.
func (s *Scenario) Helm(args ...string) string {
	s.Helper()
	out, err := s.TryHelm(args...)
	if err != nil {
		s.Fatalf("helm %s: %v\n%s\n%s", strings.Join(args, " "), err, out, s.system())
	}
	return out
}

// TryHelm is Helm for commands that may fail.
func (s *Scenario) TryHelm(args ...string) (string, error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 5*time.Minute)
	defer cancel()
	home := filepath.Join(s.logDir, "helm")
	cmd := exec.CommandContext(ctx, filepath.Join(s.programs, "helm"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.api.kubeconfig, "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	return run(ctx, cmd)
}

// system tells the states of the system's pods, and of each kind of warning about one the last.
func (s *Suite) system() string {
	var b strings.Builder
	for _, p := range s.pods.list() {
		if p.Namespace == SystemNamespace {
			fmt.Fprintf(&b, "  pod %s on %s: %s\n", p.Name, p.Spec.NodeName, state(p))
		}
	}
	warnings := map[string]string{}
	for _, e := range s.events.list() {
		if e.Namespace == SystemNamespace && e.Type != "Normal" {
			warnings[e.InvolvedObject.Name+" "+e.Reason] = e.Message[:min(len(e.Message), 500)]
		}
	}
	for _, what := range slices.Sorted(maps.Keys(warnings)) {
		fmt.Fprintf(&b, "  %s: %s\n", what, warnings[what])
	}
	return b.String()
}
