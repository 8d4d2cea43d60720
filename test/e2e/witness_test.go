//go:build integration && linux

package e2e

import (
	"slices"
	"strings"

	"keymount/test/e2e/rig"
)

// A witness is a pod that reads the two files of its volume all the time, and prints what it sees: each new content, and whatever is not whole.
type witness struct {
	*rig.Pod
	s      *rig.Scenario
	mounts []string
}

// newWitness starts one on a node, with a user and a password that are both called version, which is as in "version-1.".
func newWitness(s *rig.Scenario, node, name, version string) *witness {
	s.Helper()
	store(s, version)
	startWitness(s, node, name)
	w := &witness{Pod: s.Ready(name), s: s}
	w.mounts = w.Mounts()
	if len(w.mounts) == 0 {
		s.Fatalf("pod %s has no volume on %s", name, node)
	}
	w.sees(version)
	return w
}

// startWitness does not wait for the pod. What it reads comes by workload identity, for which kubelet asks the API server nothing that it does not know
// already.
func startWitness(s *rig.Scenario, node, name string) {
	s.Helper()
	s.Apply(`
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: web}
spec:
  provider: azure
  parameters:
    clientID: "{{.ClientID}}"
    keyvaultName: "{{.Vault}}"
    tenantID: "{{.Tenant}}"
    objects: |
      array:
        - |
          {objectName: user, objectType: secret}
        - |
          {objectName: password, objectType: secret}
---
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  serviceAccountName: reader
  nodeName: ` + node + `
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: "{{.Busybox}}"
    command: [sh, -c]
    args:
    - |
      seen=
      while :; do
        for file in user password; do
          value=$(cat /mnt/web/$file 2>&1)
          case $value in version-*.) ;; *) echo "torn: $file: $value" ;; esac
        done
        [ "$value" = "$seen" ] || echo "now $value"
        seen=$value
        sleep 0.1
      done
    volumeMounts:
    - {name: secrets, mountPath: /mnt/web, readOnly: true}
  volumes:
  - name: secrets
    csi:
      driver: secrets-store.csi.k8s.io
      readOnly: true
      volumeAttributes: {secretProviderClass: web}
`)
}

// store puts a new version of both secrets into the vault, and returns the id of the password.
func store(s *rig.Scenario, version string) (id string) {
	s.Helper()
	s.PutSecret("user", version)
	return s.PutSecret("password", version)
}

// sees waits until the pod has read that version.
func (w *witness) sees(version string) {
	w.s.Helper()
	w.AwaitLog("now " + version)
}

// undisturbed checks that the pod has always read whole files, and that its volume is the mount that it was in the beginning.
func (w *witness) undisturbed() {
	w.s.Helper()
	if text := w.Log(); strings.Contains(text, "torn") {
		w.s.Errorf("pod %s has seen files that are not whole:\n%s", w.Name, text[:min(len(text), 2000)])
	}
	if now := w.Mounts(); !slices.Equal(now, w.mounts) {
		w.s.Errorf("the volume of pod %s was mounted as\n%s\nand is now\n%s", w.Name, strings.Join(w.mounts, "\n"), strings.Join(now, "\n"))
	}
}
