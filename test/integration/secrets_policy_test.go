//go:build integration && linux

package integration

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"keymount/internal/publish"
	"keymount/internal/secretsync"
	"keymount/test/integration/apiserver"
	"keymount/test/integration/await"
	"keymount/test/integration/driver"
)

// With the policy of deploy/policy, whoever has the driver's token may no more with Secrets than the driver does, and the driver does all
// that it does without.
func TestPolicyHoldsTheDriverToItsSecrets(t *testing.T) {
	t.Attr("conformance", "10.3/policy-holds-the-driver")
	r := newSecretRig(t)
	holdToItsSecrets(t, r.ns)
	api.ApplyText(t, strings.ReplaceAll(mayDelete, "NAMESPACE", r.ns)) // as on OpenShift
	client, err := dynamic.NewForConfig(api.ConfigFor(api.Token(t, r.ns, "syncer").Token))
	if err != nil {
		t.Fatal(err)
	}
	secrets := client.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(r.ns)
	create := func(s *corev1.Secret) error {
		s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(s)
		if err != nil {
			return await.Never(err)
		}
		_, err = secrets.Create(t.Context(), &unstructured.Unstructured{Object: object}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	marked := map[string]string{managed: "true"}
	refused := func(what, message string, err error) {
		if err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%s: %v, want %q", what, err, message)
		}
	}
	// The API server learns of a policy some time after it was made.
	err = await.For(t.Context(), "the policy", func(context.Context) error {
		if err := create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "others"}}); err == nil {
			return errors.New("a Secret that is not managed may be made")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	refused("a Secret without the label", "managed Secrets only", create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "others"}}))
	refused("one with another value", "managed Secrets only", create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "others", Labels: map[string]string{managed: "yes"}}}))
	refused("a token of any account", "makes no tokens", create(&corev1.Secret{Type: corev1.SecretTypeServiceAccountToken,
		ObjectMeta: metav1.ObjectMeta{Name: "token", Labels: marked, Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}}}))
	r.put(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}})
	_, err = secrets.Patch(t.Context(), "theirs", types.MergePatchType, []byte(`{"metadata":{"labels":{"`+managed+`":"true"}}}`), metav1.PatchOptions{})
	refused("somebody else's Secret", "managed Secrets only", err)
	refused("to delete one", "deletes no Secrets", secrets.Delete(t.Context(), "theirs", metav1.DeleteOptions{}))

	r.class("c", opaque("db", "f"))
	v := r.volume(r.pod("web-1", "web"), "c")
	for _, step := range []struct {
		volume  *publish.Volume
		content string
		want    publish.SecretAction
	}{{v, "1", publish.SecretCreated}, {v, "2", publish.SecretUpdated}, {r.volume(r.pod("web-2", "rs-2"), "c"), "2", publish.SecretOwned}} {
		r.fetched(step.volume, time.Now(), map[string]string{"f": step.content})
		r.wantDone(step.want)
	}
	r.wantData("db", map[string]string{"f": "2"})
	if r.secret("db").Annotations[secretsync.Note] == "" {
		t.Error("the Secret has no note")
	}
}

// holdToItsSecrets applies the policy to the account that the tests of a namespace have in the driver's place, under a name of its own.
func holdToItsSecrets(t *testing.T, ns string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "deploy/policy/driver-secrets.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	account := apiserver.User(driver.Namespace, driver.ServiceAccount)
	if n := strings.Count(string(text), account); n != 1 {
		t.Fatalf("the policy names the driver's account %d times", n)
	}
	api.ApplyText(t, strings.NewReplacer(account, apiserver.User(ns, "syncer"), "keymount-secrets", "keymount-secrets-"+ns).Replace(string(text)))
}

const mayDelete = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: delete, namespace: NAMESPACE}
rules: [{apiGroups: [""], resources: [secrets], verbs: [delete]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: delete, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: delete}
subjects: [{kind: ServiceAccount, name: syncer, namespace: NAMESPACE}]
`
