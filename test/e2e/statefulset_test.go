//go:build integration && linux

package e2e

import (
	"strings"

	"keymount/test/e2e/rig"
)

// A pod that comes back under its name on another node finds the same there, and leaves nothing behind.
func (providerDaemonSet) StatefulSetMoves(s *rig.Scenario) {
	s.PutSecret("db-password", "wanders")
	s.Class("web", `{objectName: db-password, objectType: secret}`)
	on := func(node string) {
		s.Helper()
		s.Apply(strings.ReplaceAll(wanderer, "NODE", node))
	}
	on("n1")
	old := s.Ready("web-0")
	if got := old.File("/mnt/web/db-password"); got != "wanders" || old.Node != "n1" {
		s.Errorf("on node %s the file is %q", old.Node, got)
	}
	on("n2")
	moved := old.Restarted()
	if got := moved.File("/mnt/web/db-password"); got != "wanders" || moved.Node != "n2" {
		s.Errorf("on node %s the file is %q", moved.Node, got)
	}
	old.AwaitNothingLeft()
	if len(moved.Mounts()) != 1 {
		s.Errorf("the mounts on the new node are %q", moved.Mounts())
	}
	// The status object has the same name, and is the new pod's.
	all := statuses(s)
	if len(all) != 1 || len(all[0].OwnerReferences) != 1 || string(all[0].OwnerReferences[0].UID) != moved.UID || !strings.Contains(all[0].Status.TargetPath, moved.UID) {
		s.Errorf("the status objects are %+v", all)
	}
	s.PutSecret("db-password", "is refreshed")
	moved.AwaitFile("/mnt/web/db-password", "is refreshed")
}

const wanderer = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      nodeSelector: {kubernetes.io/hostname: NODE}
      containers:
      - name: main
        image: "{{.Busybox}}"
        command: [sleep, "86400"]
        volumeMounts:
        - {name: secrets, mountPath: /mnt/web, readOnly: true}
      volumes:
      - name: secrets
        csi:
          driver: secrets-store.csi.k8s.io
          readOnly: true
          volumeAttributes: {secretProviderClass: web}
          nodePublishSecretRef: {name: principal}
`
