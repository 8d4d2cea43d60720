//go:build integration && linux

package e2e

import "keymount/test/e2e/rig"

// A container that is not root reads its secrets by the group that the pod's fsGroup gives to files and folders. Modes are the class's.
func (everyInstallation) NonRootByGroup(s *rig.Scenario) {
	s.PutSecret("db-password", "one")
	s.Class("web",
		`{objectName: db-password, objectType: secret, filePermission: "0440"}`,
		`{objectName: db-password, objectType: secret, objectAlias: nested/everyone}`,
		`{objectName: db-password, objectType: secret, objectAlias: owner, filePermission: "0400"}`)
	s.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
  containers:
  - name: main
    image: "{{.Busybox}}"
    command: [sleep, "86400"]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    volumeMounts:
    - {name: secrets, mountPath: /mnt/web, readOnly: true}
  volumes:
  - name: secrets
    csi:
      driver: secrets-store.csi.k8s.io
      readOnly: true
      volumeAttributes: {secretProviderClass: web}
      nodePublishSecretRef: {name: principal}
`)
	pod := s.Ready("web")
	check := func(value string) {
		s.Helper()
		for file, want := range map[string]string{"db-password": "0:2000 440\n", "nested": "0:2000 755\n", "nested/everyone": "0:2000 644\n", "owner": "0:2000 400\n"} {
			if got := pod.Exec("stat", "-L", "-c", "%u:%g %a", "/mnt/web/"+file); got != want {
				s.Errorf("%s is %swant %s", file, got, want)
			}
		}
		for _, file := range []string{"db-password", "nested/everyone"} {
			if got := pod.File("/mnt/web/" + file); got != value {
				s.Errorf("%s is %q, want %q", file, got, value)
			}
		}
		if out, err := pod.TryExec("cat", "/mnt/web/owner"); err == nil {
			s.Errorf("a file that is its owner's alone was read by another: %q", out)
		}
	}
	check("one")
	s.PutSecret("db-password", "two")
	pod.AwaitFile("/mnt/web/db-password", "two")
	check("two")
}
