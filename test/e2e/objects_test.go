//go:build integration && linux

package e2e

import (
	"encoding/base64"
	"encoding/pem"
	"slices"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"keymount/internal/emulator"
	"keymount/test/e2e/rig"
)

// Everything that one class can ask for, read by a service principal whose credentials a Secret holds.
func (everyInstallation) ObjectsByServicePrincipal(s *rig.Scenario) {
	s.PutSecret("db-password", "correct horse")
	s.PutKey(emulator.Key{Name: "signing"})
	s.PutCertificate(emulator.Certificate{Name: "web-tls", Subject: "CN=shop.example"})
	s.PutHistory("rolling", "oldest", "older", "newest")
	s.Apply(`
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: web}
spec:
  provider: azure
  parameters:
    usePodIdentity: "false"
    keyvaultName: "{{.Vault}}"
    cloudName: ""
    tenantId: "{{.Tenant}}"
    objects: |
      array:
        - |
          objectName: db-password
          objectType: secret
        - |
          objectName: db-password
          objectType: secret
          objectAlias: database/password
          filePermission: "0400"
        - |
          objectName: signing
          objectType: key
        - |
          objectName: web-tls
          objectType: cert
          objectAlias: web-tls.crt
        - |
          objectName: web-tls
          objectType: secret
          objectAlias: web-tls.pem
        - |
          objectName: web-tls
          objectType: secret
          objectAlias: web-tls.pfx
          objectFormat: pfx
        - |
          objectName: rolling
          objectType: secret
          objectVersionHistory: 2
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: "{{.Busybox}}"
    command: [sleep, "86400"]
    volumeMounts:
    - {name: secrets, mountPath: /mnt/secrets, readOnly: true}
  volumes:
  - name: secrets
    csi:
      driver: secrets-store.csi.k8s.io
      readOnly: true
      volumeAttributes: {secretProviderClass: web}
      nodePublishSecretRef: {name: principal}
`)
	pod := s.Ready("web")
	for file, want := range map[string]string{"db-password": "correct horse", "database/password": "correct horse", "rolling/0": "newest", "rolling/1": "older"} {
		if got := pod.File("/mnt/secrets/" + file); got != want {
			s.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	if mode := pod.Exec("stat", "-L", "-c", "%a %a", "/mnt/secrets/database/password"); mode != "400 400\n" {
		s.Errorf("database/password has mode %s", mode)
	}
	for file, want := range map[string][]string{
		"signing": {"PUBLIC KEY"}, "web-tls.crt": {"CERTIFICATE"}, "web-tls.pem": {"PRIVATE KEY", "CERTIFICATE"},
	} {
		if got := blocks(pod.File("/mnt/secrets/" + file)); !slices.Equal(got, want) {
			s.Errorf("%s holds %v, want %v", file, got, want)
		}
	}
	checkPFX(s.T, pod.File("/mnt/secrets/web-tls.pfx"))
}

// blocks are the types of the PEM blocks of a text.
func blocks(text string) []string {
	var all []string
	for b, rest := pem.Decode([]byte(text)); b != nil; b, rest = pem.Decode(rest) {
		all = append(all, b.Type)
	}
	return all
}

// checkPFX opens what a class with objectFormat pfx writes: base64 of a file without a password.
func checkPFX(t *testing.T, text string) {
	t.Helper()
	file, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatalf("the PFX is not base64: %v", err)
	}
	if _, certificate, err := pkcs12.Decode(file, ""); err != nil || certificate.Subject.CommonName != "shop.example" {
		t.Errorf("the PFX holds %v: %v", certificate, err)
	}
}
