//go:build integration && linux

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"keymount/test/integration/apiserver"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// narrow makes a service account that has the rights of deploy/rbac without those for synced Secrets.
func narrow(t *testing.T) (account string) {
	t.Helper()
	account = api.Namespace(t) // a name of its own
	api.ServiceAccount(t, driver.Namespace, account, nil)
	for _, role := range []string{"secretproviderclasses-role", "keymount-serviceaccounts-role", "keymount-tokenkeys-role"} {
		api.ApplyText(t, fmt.Sprintf(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: %[1]s-%[2]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %[2]s}
subjects: [{kind: ServiceAccount, name: %[1]s, namespace: %[3]s}]
`, account, role, driver.Namespace))
	}
	return account
}

// A node that fell into wrong hands has the rights of the driver's service account.
func TestRootRights(t *testing.T) {
	install(t)
	account := narrow(t)
	r := newRigWith(t, driver.Options{Account: account, Args: append(withAzure("--share-reads-for=0s"), rotation("1s")...)})
	user := apiserver.User(driver.Namespace, account)
	r.row("10.3/no-right-on-secrets", func(r *rig) {
		r.emu.PutSecret(vault, "db", "one")
		r.azureClass("app", nil, "db")
		r.principal("sp")
		v := r.volume("app", withSecret("sp")) // a Secret that kubelet reads
		r.mustPublish(v)
		r.wantFiles(v, map[string]string{"db": "one"})
		r.mustUnpublish(v)
		for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete"} {
			r.wantRight(account, verb, "", "secrets", "", false)
		}
		for _, request := range api.Requests(r, user) {
			if strings.HasPrefix(request.Resource, "secrets") {
				r.Errorf("the driver asked %s %s", request.Verb, request.URI)
			}
		}
		if refused := api.Forbidden(r, user); len(refused) > 0 {
			r.Errorf("the driver needs more: %v", refused)
		}
	})
	r.row("10.3/rights-are-narrow", func(r *rig) {
		const group = "secrets-store.csi.x-k8s.io"
		r.wantRight(account, "get", group, "secretproviderclasses", "", true) // the question itself works
		for _, verb := range []string{"get", "list", "watch"} {
			r.wantRight(account, verb, "", "pods", "", false)
			r.wantRight(account, verb, "storage.k8s.io", "csidrivers", "another.csi.driver", false)
		}
		for _, verb := range []string{"create", "update", "patch", "delete"} {
			r.wantRight(account, verb, group, "secretproviderclasses", "", false)
		}
		for _, verb := range []string{"list", "watch", "update", "delete", "deletecollection"} {
			r.wantRight(account, verb, group, "secretproviderclasspodstatuses", "", false)
		}
		r.wantRight(account, "create", "", "serviceaccounts/token", "", false)
	})
}

// wantRight asks the API server whether a service account may do something in the rig's namespace.
func (r *rig) wantRight(account, verb, group, resource, name string, want bool) {
	r.Helper()
	client, err := dynamic.NewForConfig(api.ConfigFor(api.Token(r, driver.Namespace, account).Token))
	if err != nil {
		r.Fatal(err)
	}
	resource, subresource, _ := strings.Cut(resource, "/")
	review := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
		"spec": map[string]any{"resourceAttributes": map[string]any{
			"namespace": r.ns, "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name}},
	}}
	answer, err := client.Resource(schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectaccessreviews"}).
		Create(r.Context(), review, metav1.CreateOptions{})
	if err != nil {
		r.Fatal(err)
	}
	if allowed, _, _ := unstructured.NestedBool(answer.Object, "status", "allowed"); allowed != want {
		r.Errorf("%s on %s %s: %v, want %v", verb, resource, name, allowed, want)
	}
}

// What a pod's author and a provider can do to a volume.
func TestRootWeaknesses(t *testing.T) {
	r := newRig(t, slowly...)
	r.row("10.3/parameters-can-be-locked", func(r *rig) {
		p := r.provide(r.driver.Providers, "locked")
		attribute := func(pod *corev1.Pod) {
			pod.Spec.Volumes[0].CSI.VolumeAttributes["keyvaultName"] = "of the pod"
			pod.Spec.Volumes[0].CSI.VolumeAttributes["keymount.dev/service-account-annotations"] = "forged"
		}
		for _, lock := range []string{"true", "True", "1", "yes"} {
			r.class("lock-"+strings.ToLower(lock), "locked", map[string]string{"keymount.dev/lock-parameters": lock}, "keyvaultName: of the class")
			err := r.volume("lock-"+strings.ToLower(lock), attribute).Publish(r.Context())
			if kubelet.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "keyvaultName") {
				r.Errorf("locked by %q: %v", lock, err)
			}
		}
		r.mustPublish(r.volume("lock-true")) // kubelet's own attributes are no override
		r.wantAsked(p, 1)
		r.class("open", "locked", map[string]string{"keymount.dev/lock-parameters": "false"}, "keyvaultName: of the class")
		r.mustPublish(r.volume("open", attribute))
		for i, want := range []string{"of the class", "of the pod"} {
			var got map[string]string
			if err := json.Unmarshal([]byte(p.asked()[i].Attributes), &got); err != nil {
				r.Fatal(err)
			}
			if _, forged := got["keymount.dev/service-account-annotations"]; got["keyvaultName"] != want || forged {
				r.Errorf("the provider is given %v", got)
			}
		}
	})
	r.row("10.3/set-id-bits-are-not-honoured", func(r *rig) {
		p := r.scriptedClass("setuid")
		answer := content("v1", "a")
		answer.Files[0].Mode = 0o6755
		p.say(answer)
		v := r.volume("setuid")
		r.mustPublish(v)
		info, err := os.Stat(filepath.Join(v.Target, "a"))
		if err != nil || info.Mode() != 0o755 {
			r.Errorf("mode %v (%v)", info.Mode(), err)
		}
		table, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			r.Fatal(err)
		}
		for line := range strings.Lines(string(table)) {
			if strings.Contains(line, " "+v.Target+" ") && (!strings.Contains(line, "nosuid") || !strings.Contains(line, "nodev")) {
				r.Errorf("mounted as %s", line)
			}
		}
	})
}
