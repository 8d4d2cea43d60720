//go:build integration && linux

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"keymount/test/e2e/rig"
)

// databaseClient is a Deployment whose container needs the Secret of databaseClass, with at most one pod more on one node than on another.
const databaseClient = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  revisionHistoryLimit: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: main
        image: "{{.Busybox}}"
        command: [sleep, "86400"]
        env:
        - name: DB_PASSWORD
          valueFrom: {secretKeyRef: {name: database, key: password}}
        volumeMounts:
        - {name: secrets, mountPath: /mnt/database, readOnly: true}
      volumes:
      - name: secrets
        csi:
          driver: secrets-store.csi.k8s.io
          readOnly: true
          volumeAttributes: {secretProviderClass: database}
          nodePublishSecretRef: {name: principal}
`

// A Secret belongs to the Deployment whose pods need it: it outlives them and their ReplicaSets, and goes when the Deployment does.
func (providerDaemonSet) SecretLivesAsLongAsItsDeployment(s *rig.Scenario) {
	s.PutSecret("db-password", "correct horse")
	s.Apply(databaseClass)
	s.Apply(databaseClient)
	first := s.AllReady(1)[0]
	changes := s.Changes(secretKind, "database")
	old := ownerOf(s, "database", "ReplicaSet")

	s.Kubectl("rollout", "restart", "deployment/web", "-n", s.Namespace)
	s.Kubectl("rollout", "status", "deployment/web", "-n", s.Namespace, "--timeout=90s")
	s.Await("the old ReplicaSet to be no owner any more", func() error {
		if now := owners(s, "database"); len(now) != 1 || now[0] == old {
			return fmt.Errorf("the owners are %q", now)
		}
		return nil
	})
	second := s.AllReady(1)[0]
	if second.UID == first.UID {
		s.Error("the rollout left the pod as it was")
	}

	// What belongs to the last pod goes with it. That the Secret does not is no matter of time then.
	s.Apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: of-the-pod, ownerReferences: [{apiVersion: v1, kind: Pod, name: ` + second.Name + `, uid: ` + second.UID + `}]}}`)
	s.Kubectl("scale", "deployment/web", "--replicas=0", "-n", s.Namespace)
	awaitGone(s, "v1/ConfigMap", "of-the-pod")
	if seen := changes(); slices.Contains(seen, "DELETED") {
		s.Errorf("with a Deployment that was there all the time, the Secret was: %q", seen)
	}

	s.Delete("apps/v1/Deployment", "web")
	awaitGone(s, secretKind, "database")
}

// A Secret that somebody deleted is made again: at once when a pod of its class starts on a node that has none, and within minutes where pods run.
func (providerDaemonSet) SecretThatWasDeleted(s *rig.Scenario) {
	s.PutSecret("db-password", "correct horse")
	s.Apply(databaseClass)
	s.Apply(databaseClient)
	s.AllReady(1)
	before := ownerOf(s, "database", "ReplicaSet")
	s.Delete(secretKind, "database")
	s.Kubectl("scale", "deployment/web", "--replicas=2", "-n", s.Namespace)
	if pods := s.AllReady(2); pods[0].Node == pods[1].Node {
		s.Errorf("both pods are on %s", pods[0].Node)
	}
	awaitSecret(s, "database", map[string]string{"password": "correct horse"})
	if now := ownerOf(s, "database", "ReplicaSet"); now != before {
		s.Errorf("the Secret belongs to %s, before it did to %s", now, before)
	}
}

// A Secret that upstream's driver made goes on under this one: as long as its content is right it gets an owner, and nothing else. A pod without a
// controller owns it itself.
func (providerDaemonSet) SecretOfUpstream(s *rig.Scenario) {
	s.PutSecret("db-password", "one")
	s.Class("database", `{objectName: db-password, objectType: secret}`)
	pod := s.Pod("web", "database")
	status := statuses(s)[0]
	s.Apply(`
apiVersion: v1
kind: Secret
metadata:
  name: database
  labels: {` + managedLabel + `: "true"}
  ownerReferences:
  - {apiVersion: secrets-store.csi.x-k8s.io/v1, kind: SecretProviderClassPodStatus, name: ` + status.Name + `, uid: ` + string(status.UID) + `}
type: Opaque
stringData: {password: one}
`)
	changes := s.Changes(secretKind, "database")
	s.Apply(databaseClass) // which asks for it
	want := []string{"SecretProviderClassPodStatus " + string(status.UID), "Pod " + pod.UID}
	s.Await("the pod to own the Secret", func() error {
		if now := owners(s, "database"); !slices.Equal(now, want) {
			return fmt.Errorf("the owners are %q", now)
		}
		return nil
	})
	if seen := changes(); !slices.Equal(seen, []string{"MODIFIED"}) {
		s.Errorf("the Secret changed more than once: %q", seen)
	}
	if _, noted := awaitSecret(s, "database", map[string]string{"password": "one"}).Annotations[syncedAnnotation]; noted {
		s.Error("the Secret was written, although it held the right content")
	}

	s.PutSecret("db-password", "two")
	s.Annotate(classKind, "database", wishAnnotation, "now")
	awaitSecret(s, "database", map[string]string{"password": "two"})
	s.AwaitEvent("web", secretUpdated, "database")
	pod.Delete()
	awaitGone(s, secretKind, "database")
}

// owners are those of a Secret, each as a kind and a uid.
func owners(s *rig.Scenario, name string) (all []string) {
	s.Helper()
	var secret corev1.Secret
	if !s.Get(secretKind, name, &secret) {
		s.Fatalf("there is no Secret %s", name)
	}
	for _, o := range secret.OwnerReferences {
		all = append(all, o.Kind+" "+string(o.UID))
	}
	return all
}

// ownerOf is the only owner of a Secret, which must be of that kind.
func ownerOf(s *rig.Scenario, name, kind string) string {
	s.Helper()
	all := owners(s, name)
	if len(all) != 1 || !strings.HasPrefix(all[0], kind+" ") {
		s.Fatalf("the owners of Secret %s are %q", name, all)
	}
	return all[0]
}

// awaitGone waits until the garbage collector has removed an object.
func awaitGone(s *rig.Scenario, kind, name string) {
	s.Helper()
	s.Await(kind+" "+name+" to be gone", func() error {
		if s.Get(kind, name, &struct{}{}) {
			return errors.New("it is there")
		}
		return nil
	})
}

// A release without syncSecret.enabled gives the driver no right on Secrets. Pods run, with their files, and are told what is missing; once it is
// granted the Secrets come by themselves.
func (disruptive) SecretsWithoutTheRight(s *rig.Scenario) {
	helmUpgrade(s, "--set", "secrets-store-csi-driver.syncSecret.enabled=false")
	s.PutSecret("db-password", "correct horse")
	s.Apply(databaseClass)
	s.Annotate(classKind, "database", pollAnnotation, "12h") // no refresh brings the Secret
	if got := s.Pod("web", "database").File("/mnt/database/db-password"); got != "correct horse" {
		s.Errorf("the file is %q", got)
	}
	s.AwaitEvent("web", secretFailed, "database", "syncSecret.enabled")
	awaitSecretsSynced(s, "False", "syncSecret.enabled")
	if s.Get(secretKind, "database", &corev1.Secret{}) {
		s.Error("the Secret is there")
	}
	helmUpgrade(s, "--set", "secrets-store-csi-driver.syncSecret.enabled=true")
	awaitSecret(s, "database", map[string]string{"password": "correct horse"})
	awaitSecretsSynced(s, "True", "")
}
