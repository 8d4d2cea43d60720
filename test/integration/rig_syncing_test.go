//go:build integration && linux

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"keymount/internal/publish"
	"keymount/test/integration/apiserver"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// The rights of deploy/rbac, by their files.
var (
	usualRights   = []string{"deploy/rbac/rbac-secretproviderclass.yaml", "deploy/rbac/rbac-keymount.yaml"}
	syncingRights = []string{"deploy/rbac/rbac-secretprovidersyncing.yaml"}
)

// grant gives a service account of its own, by this name, the rights that files of the repository give to the driver's.
func grant(t testing.TB, name string, files ...string) string {
	t.Helper()
	var texts []string
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(repository, file))
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, strings.ReplaceAll(string(text), "name: keymount-", "name: "+name+"-keymount-"))
	}
	return accountWith(t, name, strings.Join(texts, "\n---\n"))
}

// A syncRig is a node with the driver as a process, which has an account of its own, and its Secrets as an administrator sees them.
type syncRig struct {
	*rig
	cluster *secretRig
}

// newSyncRig starts a node whose driver has all the rights of deploy/rbac.
func newSyncRig(t *testing.T, account string, args ...string) *syncRig {
	t.Helper()
	return syncRigOf(newRigWith(t, driver.Options{Account: grant(t, account, append(usualRights, syncingRights...)...), Args: args}), account)
}

func syncRigOf(r *rig, account string) *syncRig {
	s := &syncRig{rig: r, cluster: &secretRig{T: r.T, ns: r.ns, user: apiserver.User(driver.Namespace, account)}}
	s.cluster.asked()
	return s
}

// asked counts the driver's requests since the last call, without watches.
func (r *syncRig) asked() map[string]int {
	r.Helper()
	counts := r.cluster.asked()
	maps.DeleteFunc(counts, func(what string, _ int) bool { return strings.HasPrefix(what, "watch ") })
	return counts
}

func (r *syncRig) wantAsked(what string, want map[string]int) {
	r.Helper()
	if got := r.asked(); !maps.Equal(got, want) {
		r.Errorf("%s: asked %v, want %v", what, got, want)
	}
}

// What the driver asks for besides Secrets.
const (
	readClass   = "get secretproviderclasses.secrets-store.csi.x-k8s.io"
	makeStatus  = "create secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io"
	patchStatus = "patch secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io"
)

// awaitWatch waits until a refresh of the volume no longer asks for its class.
func (r *syncRig) awaitWatch(v *kubelet.Volume) {
	r.Helper()
	r.driver.Await("the class to be watched", func(context.Context) error {
		r.asked()
		r.mustRepublish(v)
		if asked := r.asked(); asked[readClass] > 0 {
			return fmt.Errorf("asked %v", asked)
		}
		return nil
	})
}

// syncedClass makes or changes a class that asks for Secrets.
func (r *rig) syncedClass(name, provider string, parameters map[string]string, secrets ...publish.SecretObject) {
	r.Helper()
	api.ApplyText(r.T, r.syncedClassText(name, provider, parameters, secrets...))
}

func (r *rig) syncedClassText(name, provider string, parameters map[string]string, secrets ...publish.SecretObject) string {
	r.Helper()
	var objects []any
	for _, o := range secrets {
		var data []any
		for _, d := range o.Data {
			data = append(data, map[string]string{"key": d.Key, "objectName": d.File})
		}
		objects = append(objects, map[string]any{"secretName": o.Name, "type": o.Type, "data": data})
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass", "metadata": map[string]string{"name": name, "namespace": r.ns},
		"spec": map[string]any{"provider": provider, "parameters": parameters, "secretObjects": objects}})
	if err != nil {
		r.Fatal(err)
	}
	return string(text)
}

// some are parameters for a provider that needs none.
var some = map[string]string{"a": "b"}

// ownedBy gives the pod an owner, as a ReplicaSet's pods have.
func ownedBy(replicaSet string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: replicaSet, UID: uidOf(replicaSet)}}
	}
}

// awaitSecret waits until a Secret holds exactly this.
func (r *syncRig) awaitSecret(name string, want map[string]string) {
	r.Helper()
	r.driver.Await("Secret "+name, func(context.Context) error {
		s := r.cluster.secret(name)
		if s == nil {
			return fmt.Errorf("there is none")
		}
		got := map[string]string{}
		for key, value := range s.Data {
			got[key] = string(value)
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("it holds %q", got)
		}
		return nil
	})
}

// awaitCondition waits until the volume's status object says this of its Secrets.
func (r *rig) awaitCondition(v *kubelet.Volume, status, message string) {
	r.Helper()
	r.driver.Await("SecretsSynced "+status, func(context.Context) error {
		said := ""
		for _, object := range r.statuses() {
			if target, _, _ := unstructured.NestedString(object.Object, "status", "targetPath"); target != v.Target {
				continue
			}
			conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
			for _, c := range conditions {
				if c := c.(map[string]any); c["type"] == "SecretsSynced" {
					said = fmt.Sprint(c["status"], " ", c["message"])
				}
			}
		}
		if !strings.HasPrefix(said, status+" ") || !strings.Contains(said, message) {
			return fmt.Errorf("it says %q", said)
		}
		return nil
	})
}

// awaitMetric waits until the driver exports a series, named with its labels and value.
func (r *rig) awaitMetric(line string) {
	r.Helper()
	name, _, _ := strings.Cut(line, "{")
	r.driver.Await(line, func(context.Context) error {
		series := r.metric(name + "{")
		for _, one := range series {
			if one == line {
				return nil
			}
		}
		return fmt.Errorf("there are %q", series)
	})
}
