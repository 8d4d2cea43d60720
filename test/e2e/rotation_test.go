//go:build integration && linux

package e2e

import (
	"fmt"
	"strings"

	"keymount/test/e2e/rig"
)

const (
	classKind        = "secrets-store.csi.x-k8s.io/v1/SecretProviderClass"
	pollAnnotation   = "keymount.dev/rotation-poll-interval"
	wishAnnotation   = "keymount.dev/refresh"
	rotationComplete = "MountRotationComplete"
)

// A new version in the vault comes into the running pod at the release's interval, and says so.
func (everyInstallation) RotationByInterval(s *rig.Scenario) {
	s.PutSecret("db-password", "one")
	s.PutSecret("db-user", "admin")
	s.Class("web", `{objectName: db-password, objectType: secret}`, `{objectName: db-user, objectType: secret}`)
	pod := s.Pod("web", "web")
	before := statuses(s)[0]
	s.PutSecret("db-password", "two")
	pod.AwaitFile("/mnt/web/db-password", "two")
	if got := pod.File("/mnt/web/db-user"); got != "admin" {
		s.Errorf("the file that did not change is %q", got)
	}
	s.AwaitEvent("web", rotationComplete, "web")
	s.Await("the status object to tell of the new version", func() error {
		after := statuses(s)[0]
		state, reason, message := after.upToDate()
		changed := after.version("secret/db-password") != before.version("secret/db-password") && after.version("secret/db-user") == before.version("secret/db-user")
		if !changed || state != "True" {
			return fmt.Errorf("%+v, up to date: %s %s %s", after.Status.Objects, state, reason, message)
		}
		return nil
	})
}

// A class may have an interval of its own, and asks for a refresh at once by an annotation.
func (everyInstallation) RotationByAnnotation(s *rig.Scenario) {
	s.PutSecret("db-password", "one")
	s.Class("often", `{objectName: db-password, objectType: secret}`)
	s.Class("seldom", `{objectName: db-password, objectType: secret}`)
	s.Annotate(classKind, "seldom", pollAnnotation, "12h")
	pod := s.Pod("web", "often", "seldom")
	for _, value := range []string{"two", "three"} {
		s.PutSecret("db-password", value)
		pod.AwaitFile("/mnt/often/db-password", value)
		if got := pod.File("/mnt/seldom/db-password"); got != "one" {
			s.Errorf("the volume that is refreshed every 12 hours holds %q", got)
		}
	}
	for i, value := range []string{"four", "five"} {
		// What the other volume has just read is no answer to a wish of this moment.
		s.PutSecret("db-password", value)
		s.Annotate(classKind, "seldom", wishAnnotation, fmt.Sprintf("wish %d", i))
		pod.AwaitFile("/mnt/seldom/db-password", value)
	}
	s.AwaitEvent("web", rotationComplete, "seldom")
}

// torn is a program in a pod that reads two files of one generation again and again, and notes where they do not belong together. Its processor time is
// limited, since it does nothing else.
const torn = `
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: "{{.Busybox}}"
    resources: {limits: {cpu: 150m}}
    command:
    - sh
    - -c
    - |
      last= told=
      while :; do
        # Whoever is here when the generation is taken away finds no file, and looks again.
        { cd -P /mnt/pair/..data && read -r left <left && read -r right <right; } 2>/dev/null || continue
        [ "$left" = "$right" ] || [ "$left and $right" = "$told" ] || { told="$left and $right"; echo "torn: $told"; }
        [ "$left" = "$last" ] || { last=$left; echo "saw $left"; }
      done
    volumeMounts:
    - {name: pair, mountPath: /mnt/pair, readOnly: true}
  volumes:
  - name: pair
    csi:
      driver: secrets-store.csi.k8s.io
      readOnly: true
      volumeAttributes: {secretProviderClass: pair}
      nodePublishSecretRef: {name: principal}
`

// Files that change together are seen together by whoever resolves ..data once.
func (providerDaemonSet) RotationIsWhole(s *rig.Scenario) {
	s.PutSecret("pair", "one\n")
	s.Class("pair", `{objectName: pair, objectType: secret, objectAlias: left}`, `{objectName: pair, objectType: secret, objectAlias: right}`)
	s.Apply(torn)
	pod := s.Ready("reader")
	pod.AwaitLog("saw one")
	for _, value := range []string{"two", "three"} {
		s.PutSecret("pair", value+"\n")
		s.Annotate(classKind, "pair", wishAnnotation, value)
		pod.AwaitLog("saw " + value)
	}
	if text := pod.Log(); strings.Contains(text, "torn") {
		s.Errorf("the reader saw files of two generations at once:\n%s", text)
	}
}

// A file mounted with subPath stays as it was when the container started, as with Secrets and ConfigMaps.
func (providerDaemonSet) SubPath(s *rig.Scenario) {
	s.PutSecret("db-password", "one")
	s.Class("web", `{objectName: db-password, objectType: secret}`)
	s.Apply(`
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
    - {name: secrets, mountPath: /mnt/web, readOnly: true}
    - {name: secrets, mountPath: /etc/db-password, subPath: db-password, readOnly: true}
  volumes:
  - name: secrets
    csi:
      driver: secrets-store.csi.k8s.io
      readOnly: true
      volumeAttributes: {secretProviderClass: web}
      nodePublishSecretRef: {name: principal}
`)
	pod := s.Ready("web")
	if got := pod.File("/etc/db-password"); got != "one" {
		s.Errorf("the file is %q", got)
	}
	s.PutSecret("db-password", "two")
	pod.AwaitFile("/mnt/web/db-password", "two")
	if got := pod.File("/etc/db-password"); got != "one" {
		s.Errorf("the file of subPath is %q by now", got)
	}
	pod.Delete()
	pod.AwaitNothingLeft()
}
