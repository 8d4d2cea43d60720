//go:build integration && linux

package e2e

import "keymount/test/e2e/rig"

// No credential is stored anywhere: kubelet gives the driver the pod's projected token, and Entra ID checks it by the cluster's own keys.
func (everyInstallation) WorkloadIdentityByClass(s *rig.Scenario) {
	s.PutSecret("db-password", "by the class")
	s.Apply(workloadIdentity(`clientID: "{{.ClientID}}"`))
	if got := s.Ready("app").File("/mnt/secrets/db-password"); got != "by the class" {
		s.Errorf("the file is %q", got)
	}
	if s.Tokens() == 0 {
		s.Error("Entra ID gave out no token to the application")
	}
}

// The class names no client: the service account's annotation does.
func (everyInstallation) WorkloadIdentityByServiceAccount(s *rig.Scenario) {
	s.PutSecret("db-password", "by the service account")
	s.Annotate("v1/ServiceAccount", "reader", "azure.workload.identity/client-id", s.ClientID)
	s.Apply(workloadIdentity(`usePodIdentity: "false"`))
	if got := s.Ready("app").File("/mnt/secrets/db-password"); got != "by the service account" {
		s.Errorf("the file is %q", got)
	}
}

func workloadIdentity(parameter string) string {
	return `
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: app}
spec:
  provider: azure
  parameters:
    ` + parameter + `
    keyvaultName: "{{.Vault}}"
    tenantID: "{{.Tenant}}"
    objects: |
      array:
        - |
          objectName: db-password
          objectType: secret
---
apiVersion: v1
kind: Pod
metadata: {name: app}
spec:
  serviceAccountName: reader
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
      volumeAttributes: {secretProviderClass: app}
`
}
