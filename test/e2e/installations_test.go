//go:build integration && linux

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"keymount/test/e2e/rig"
)

// Other ways to install the same.

// kubectl apply of the plain manifests, with a patch by which the provider trusts the emulator.
func (upgrade) PlainManifests(s *rig.Scenario) {
	clearCluster(s)
	dir := s.TempDir()
	var resources []string
	for _, file := range plainManifests(s, "*.yaml", "rbac/*.yaml") {
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o600)
		}
		if err != nil {
			s.Fatal(err)
		}
		resources = append(resources, filepath.Base(file))
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte("resources: ["+strings.Join(resources, ", ")+`]
patches:
- patch: |
    apiVersion: apps/v1
    kind: DaemonSet
    metadata: {name: csi-secrets-store-provider-azure, namespace: kube-system}
    spec:
      template:
        spec:
          containers:
          - name: provider-azure-installer
            env: [{name: SSL_CERT_FILE, value: /emulator/ca.pem}]
            volumeMounts: [{name: emulator-ca, mountPath: /emulator, readOnly: true}]
          volumes: [{name: emulator-ca, configMap: {name: emulator-ca}}]
`), 0o600); err != nil {
		s.Fatal(err)
	}
	s.Kubectl("apply", "--kustomize", dir)
	for _, set := range []string{"csi-secrets-store", "csi-secrets-store-provider-azure"} {
		s.Kubectl("rollout", "status", "daemonset", set, "--namespace", rig.SystemNamespace, "--timeout", "2m")
	}
	// As with upstream's, their CSIDriver object requests no tokens.
	s.PutSecret("db-password", "v")
	s.Class("web", `{objectName: db-password, objectType: secret}`)
	if got := s.Pod("web", "web").File("/mnt/web/db-password"); got != "v" {
		s.Errorf("the file is %q", got)
	}
}

// plainManifests are the files of deploy that fit the patterns.
func plainManifests(s *rig.Scenario, patterns ...string) []string {
	s.Helper()
	var all []string
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join("../../deploy", pattern))
		if err != nil || len(files) == 0 {
			s.Fatalf("there are no plain manifests %s: %v", pattern, err)
		}
		all = append(all, files...)
	}
	return all
}

// removePlainManifests removes what they install, but for the definitions.
func removePlainManifests(s *rig.Scenario) {
	s.Helper()
	if s.Kubectl("get", "daemonset", "csi-secrets-store", "--namespace", rig.SystemNamespace, "--ignore-not-found") == "" {
		return
	}
	args := []string{"delete", "--ignore-not-found", "--cascade=foreground"}
	for _, file := range plainManifests(s, "csidriver.yaml", "provider-azure-installer.yaml", "secrets-store-csi-driver.yaml", "rbac/*.yaml") {
		args = append(args, "--filename", file)
	}
	s.Kubectl(args...)
}

// What examples/terraform gives to helm.
func (upgrade) Terraform(s *rig.Scenario) {
	clearCluster(s)
	const name = "csisecretstorekvprovider"
	main := example(s, "main.tf")
	for _, line := range []string{`name\s+= "` + name + `"`, `namespace\s+= "` + name + `"`, `create_namespace = true`, `chart\s+= var.chart`} {
		if !regexp.MustCompile(`(?m)^\s*` + line + `$`).MatchString(main) {
			s.Fatalf("examples/terraform/main.tf has no line %s: does this scenario still do what it does?", line)
		}
	}
	args := []string{"install", name, s.Chart(providerChart), "--namespace", name, "--create-namespace", "--values", s.Trusting()}
	parameters := regexp.MustCompile(`ParamName\s+= "(.+)"\s+ParamValue = "(.+)"`).FindAllStringSubmatch(example(s, "variables.tf"), -1)
	if len(parameters) == 0 {
		s.Fatal("examples/terraform/variables.tf has no parameters")
	}
	for _, p := range parameters {
		args = append(args, "--set", p[1]+"="+p[2])
	}
	s.Helm(args...)
	s.Trust(name)
	for _, set := range strings.Fields(s.Kubectl("get", "daemonsets", "--namespace", name, "--output", "name")) {
		s.Kubectl("rollout", "status", set, "--namespace", name, "--timeout", "2m")
	}
	aWitnessOnEachNode(s, "version-1.")
}

func example(s *rig.Scenario, file string) string {
	s.Helper()
	text, err := os.ReadFile(filepath.Join("../../examples/terraform", file))
	if err != nil {
		s.Fatal(err)
	}
	return string(text)
}
