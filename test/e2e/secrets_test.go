//go:build integration && linux

package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"keymount/internal/emulator"
	"keymount/test/e2e/rig"
)

const (
	secretKind           = "v1/Secret"
	secretFailed         = "FailedToCreateSecret"
	secretUpdated        = "SecretRotationComplete"
	managedLabel         = "secrets-store.csi.k8s.io/managed"
	syncedAnnotation     = "keymount.dev/synced"
	secretsSyncCondition = "SecretsSynced"
)

// databaseClass asks for a file, and for a Kubernetes Secret of what is in it.
const databaseClass = `
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: database}
spec:
  provider: azure
  secretObjects:
  - secretName: database
    type: Opaque
    data:
    - {objectName: db-password, key: password}
  parameters:
    keyvaultName: "{{.Vault}}"
    tenantID: "{{.Tenant}}"
    objects: |
      array:
        - |
          {objectName: db-password, objectType: secret}
`

// A container that takes its environment from a Secret of its class starts at the first try, on every node: the Secret is there when the volume is.
func (everyInstallation) SecretIsThereInTime(s *rig.Scenario) {
	s.PutSecret("db-password", "correct horse")
	s.Apply(databaseClass)
	s.Apply(databaseClient)
	s.Kubectl("scale", "deployment/web", "--replicas=2", "-n", s.Namespace)
	for _, pod := range s.AllReady(2) {
		if got := pod.Exec("sh", "-c", `echo "$DB_PASSWORD"`); got != "correct horse\n" {
			s.Errorf("in pod %s on %s, DB_PASSWORD is %q", pod.Name, pod.Node, got)
		}
	}
	for _, p := range rig.List[corev1.Pod](s, "v1/Pod") {
		if n := p.Status.ContainerStatuses[0].RestartCount; n > 0 {
			s.Errorf("the container of pod %s restarted %d times", p.Name, n)
		}
	}
	for _, e := range rig.List[corev1.Event](s, "v1/Event") {
		// Failed is what kubelet says of a container that cannot be made because its Secret is not there.
		if e.Reason == "Failed" || e.Reason == secretFailed {
			s.Errorf("Event %s on %s: %s", e.Reason, e.InvolvedObject.Name, e.Message)
		}
	}
	for _, status := range statuses(s) {
		if state, _, message := status.condition(secretsSyncCondition); state != "" {
			s.Errorf("the status object %s says that Secrets are synced: %s, %s", status.Name, state, message)
		}
	}
}

// A new version in the vault comes into the Secret by one write, however many nodes read it. Where nothing changes, nothing is written.
func (providerDaemonSet) SecretIsRotated(s *rig.Scenario) {
	s.PutSecret("db-password", "one")
	s.Apply(databaseClass)
	s.Apply(databaseClient)
	s.Kubectl("scale", "deployment/web", "--replicas=2", "-n", s.Namespace) // one on each node
	pods := s.AllReady(2)
	changes := s.Changes(secretKind, "database")
	refreshTwice(s, pods)
	if seen := changes(); len(seen) > 0 {
		s.Errorf("while the content was the same the Secret changed: %q", seen)
	}
	s.PutSecret("db-password", "two")
	for _, pod := range pods {
		pod.AwaitFile("/mnt/database/db-password", "two")
	}
	awaitSecret(s, "database", map[string]string{"password": "two"})
	refreshTwice(s, pods)
	if seen := changes(); !slices.Equal(seen, []string{"MODIFIED"}) {
		s.Errorf("for one new version on two nodes the Secret changed: %q", seen)
	}
	s.Await("one Event that tells of it", func() error {
		var told []string
		for _, e := range rig.List[corev1.Event](s, "v1/Event") {
			if e.Reason == secretUpdated {
				told = append(told, e.InvolvedObject.Name+": "+e.Message)
			}
		}
		if len(told) != 1 {
			return fmt.Errorf("there are %q", told)
		}
		return nil
	})
}

// refreshTwice has the volumes of all pods refreshed.
func refreshTwice(s *rig.Scenario, pods []*rig.Pod) {
	s.Helper()
	for range 2 {
		before := s.Requests(emulator.KindSecretGet)
		s.Annotate(classKind, "database", wishAnnotation, fmt.Sprintf("after %d", before))
		s.Await("a refresh of the volumes", func() error {
			if n := s.Requests(emulator.KindSecretGet) - before; n < len(pods) {
				return fmt.Errorf("the vault was asked %d times", n)
			}
			return nil
		})
	}
}

// awaitSecret waits until the Secret holds exactly that.
func awaitSecret(s *rig.Scenario, name string, data map[string]string) (found corev1.Secret) {
	s.Helper()
	s.Await("Secret "+name, func() error {
		found = corev1.Secret{}
		if !s.Get(secretKind, name, &found) {
			return errors.New("there is none")
		}
		if len(found.Data) != len(data) {
			return fmt.Errorf("it holds %q", found.Data)
		}
		for key, value := range data {
			if string(found.Data[key]) != value {
				return fmt.Errorf("it holds %q", found.Data)
			}
		}
		return nil
	})
	return found
}

// A certificate becomes a Secret as an Ingress wants it, from the one file that holds certificate and key.
func (everyInstallation) SecretOfACertificate(s *rig.Scenario) {
	s.PutCertificate(emulator.Certificate{Name: "shop", Subject: "CN=shop.example"})
	s.Apply(`
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: tls}
spec:
  provider: azure
  secretObjects:
  - secretName: shop-tls
    type: kubernetes.io/tls
    labels: {app: shop}
    annotations: {example.com/owner: shop}
    data:
    - {objectName: shop, key: tls.crt}
    - {objectName: shop, key: tls.key}
  parameters:
    keyvaultName: "{{.Vault}}"
    tenantID: "{{.Tenant}}"
    objects: |
      array:
        - |
          {objectName: shop, objectType: secret}
`)
	s.Pod("web", "tls")
	var secret corev1.Secret
	if !s.Get(secretKind, "shop-tls", &secret) || secret.Type != corev1.SecretTypeTLS || len(secret.Data) != 2 {
		s.Fatalf("the Secret has type %s and %d keys", secret.Type, len(secret.Data))
	}
	if secret.Labels["app"] != "shop" || secret.Labels[managedLabel] != "true" || secret.Annotations["example.com/owner"] != "shop" {
		s.Errorf("the Secret has labels %q and annotations %q", secret.Labels, secret.Annotations)
	}
	for key, want := range map[string]string{"tls.crt": "CERTIFICATE", "tls.key": "RSA PRIVATE KEY"} {
		if got := blocks(string(secret.Data[key])); !slices.Equal(got, []string{want}) {
			s.Errorf("%s holds %q, want one %s", key, got, want)
		}
	}
	pair, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil || pair.Leaf.Subject.CommonName != "shop.example" {
		s.Errorf("the Secret is no key pair of shop.example: %v", err)
	}
}

// A Secret that somebody else made stays as it is, and the pod gets its files all the same. Its owner can hand it over.
func (providerDaemonSet) SecretOfSomebodyElse(s *rig.Scenario) {
	s.PutSecret("db-password", "of the vault")
	s.Apply(databaseClass)
	s.Apply("{apiVersion: v1, kind: Secret, metadata: {name: database}, stringData: {password: of somebody, user: admin}}")
	changes := s.Changes(secretKind, "database")
	pod := s.Pod("web", "database")
	if got := pod.File("/mnt/database/db-password"); got != "of the vault" {
		s.Errorf("the file is %q", got)
	}
	s.AwaitEvent("web", secretFailed, "database", "no SecretProviderClass makes", managedLabel)
	awaitSecretsSynced(s, "False", "no SecretProviderClass makes")
	if seen := changes(); len(seen) > 0 {
		s.Errorf("the Secret changed: %q", seen)
	}
	// What the message proposes.
	s.Kubectl("label", "secret", "database", managedLabel+"=true", "-n", s.Namespace)
	awaitSecret(s, "database", map[string]string{"password": "of the vault", "user": "admin"})
	awaitSecretsSynced(s, "True", "")
}

// awaitSecretsSynced waits until the one status object says so.
func awaitSecretsSynced(s *rig.Scenario, state, message string) {
	s.Helper()
	s.Await("the condition "+secretsSyncCondition+" to be "+state, func() error {
		all := statuses(s)
		if len(all) != 1 {
			return fmt.Errorf("there are %d status objects", len(all))
		}
		if gotState, reason, got := all[0].condition(secretsSyncCondition); gotState != state || !strings.Contains(got, message) {
			return fmt.Errorf("it is %s %s %s", gotState, reason, got)
		}
		return nil
	})
}
