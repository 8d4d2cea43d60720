//go:build integration && linux

package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"

	"keymount/internal/emulator/emulatortest"
	"keymount/test/integration/apiserver"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// With exactly the arguments and the rights of upstream's releases, and its registrar, the driver serves, and asks for nothing
// that it may not have.
func TestRootUpstream(t *testing.T) {
	claim(t, "12.2/csidriver-name", "12.2/sidecars", "12.6/unmount-is-silent", "12.8/republish-when-nothing-is-due")
	for _, release := range []string{"1.5.6", "1.6.0"} {
		for _, rotation := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s rotation %v", release, rotation), func(t *testing.T) {
				claim(t, "12.2/rights-of-upstream-"+release)
				var args []string
				if rotation {
					args = upstreamRotation()
				}
				if release == "1.6.0" { // 0 is every republish, and not "off"
					args = append(args, "--rotation-poll-interval=0s")
				}
				r := newUpstreamRig(t, "testdata/rbac-upstream-"+release+".yaml", args...)
				r.sidecars()
				r.lifeAsUpstream(rotation)
				if got := r.forbidden("rbac-upstream-" + release); len(got) > 0 {
					t.Errorf("forbidden: %+v", got)
				}
				for _, never := range []string{"level=ERROR", "failed to clean and unmount target path"} {
					if n := r.logged(never); n > 0 {
						t.Errorf("%q was logged %d times", never, n)
					}
				}
			})
		}
	}
}

// sidecars asks what upstream's registrar and liveness probe ask the driver on its socket.
func (r *rig) sidecars() {
	r.Helper()
	client := csi.NewIdentityClient(r.driver.Dial())
	if info, err := client.GetPluginInfo(r.Context(), &csi.GetPluginInfoRequest{}); err != nil || info.Name != driver.Name || info.VendorVersion == "" {
		r.Errorf("the registrar is told %v, %v", info, err)
	}
	// Without the field a driver counts as ready.
	if probe, err := client.Probe(r.Context(), &csi.ProbeRequest{}); err != nil || probe.Ready != nil && !probe.Ready.Value {
		r.Errorf("the liveness probe is told %v, %v", probe, err)
	}
}

// lifeAsUpstream takes a volume of a provider behind a socket from its first mount to its end.
func (r *rig) lifeAsUpstream(rotation bool) {
	r.Helper()
	r.class("app", "other", nil, "key: value")
	p := r.provide(r.driver.Providers, "other")
	v := r.volume("app")
	r.mustPublish(v)
	r.wantTree(v, map[string]string{"a": "a v1"})
	if got := r.onlyStatus(); got.GetName() != fmt.Sprintf("%s-%s-app", r.podName(), r.ns) || objectsIn(got) != "secret/a=v1" {
		r.Errorf("status object %v", got)
	}
	p.say(content("v2", "a", "b"))
	r.mustRepublish(v)
	if !rotation {
		r.wantTree(v, map[string]string{"a": "a v1"})
		if n := len(p.asked()); n != 1 {
			r.Errorf("the provider was asked %d times", n)
		}
		r.wantMetric(`node_publish_total{os_type="linux",provider=""} 1`)
	} else {
		r.wantTree(v, map[string]string{"a": "a v2", "b": "b v2"})
		if got := objectsIn(r.onlyStatus()); got != "secret/a=v2 secret/b=v2" {
			r.Errorf("the status lists %s", got)
		}
		r.awaitEvent("Normal MountRotationComplete: ")
		r.wantMetric(`rotation_reconcile_total{os_type="linux",provider="other",rotated="true"} 1`)
	}
	r.mustUnpublish(v)
	r.wantMetric(`node_unpublish_total{os_type="linux"} 1`)
}

// podName is the name of the only pod.
func (r *rig) podName() string {
	r.Helper()
	return r.onlyStatus().GetOwnerReferences()[0].Name
}

// With exactly the rights of deploy/rbac, and everything on that needs one, nothing is refused in the whole life of a volume.
func TestRootOwnRights(t *testing.T) {
	claim(t, "12.2/rights-of-keymount")
	user := apiserver.User(driver.Namespace, driver.ServiceAccount)
	before := len(api.Requests(t, user))
	forbidden := len(api.Forbidden(t, user))
	r := newRig(t, append(withAzure("--share-reads-for=0s", "--service-account-annotations=azure.workload.identity/client-id"), rotation("1ms")...)...)
	r.emu.PutSecret(vault, "own-rights", "one")
	r.azureClass("app", nil, "own-rights")
	r.principal("sp")
	api.ServiceAccount(t, r.ns, "annotated", map[string]string{"azure.workload.identity/client-id": emulatortest.ClientID})
	pod := api.Pod(t, &corev1.Pod{ObjectMeta: metaIn(r.ns), Spec: corev1.PodSpec{ServiceAccountName: "annotated", NodeName: driver.Node,
		Volumes: []corev1.Volume{kubelet.Inline("secrets", driver.Name, map[string]string{"secretProviderClass": "app"})}}})
	inline := pod.Spec.Volumes[0].CSI
	inline.NodePublishSecretRef = &corev1.LocalObjectReference{Name: "sp"}
	// Tokens for an audience that the CSIDriver object does not request are proven by the keys of the API server.
	inline.VolumeAttributes[kubelet.TokensKey] = tokensOf(map[string]string{
		"vault": api.Token(t, r.ns, "annotated", apiserver.ForAudiences("vault"), apiserver.BoundTo(pod)).Token})
	v, err := r.kubelet.Volume(pod, "secrets")
	if err != nil {
		t.Fatal(err)
	}
	r.mustPublish(v)
	r.emu.PutSecret(vault, "own-rights", "two")
	r.mustRepublish(v)
	r.wantTree(v, map[string]string{"own-rights": "two"})
	r.awaitEvent("Normal MountRotationComplete: ")
	r.mustUnpublish(v)
	r.driver.Stop() // Events that wait are sent
	if got := api.Forbidden(t, user)[forbidden:]; len(got) > 0 {
		t.Errorf("a right is missing in deploy/rbac: %+v", got)
	}
	asked := apiserver.Counts(api.Requests(t, user)[before:])
	for _, right := range []string{"get secretproviderclasses.secrets-store.csi.x-k8s.io", "watch secretproviderclasses.secrets-store.csi.x-k8s.io",
		"create secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io", "patch secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io", "create events", "get serviceaccounts",
		"watch csidrivers.storage.k8s.io", "get /openid/v1/jwks"} {
		if asked[right] == 0 {
			t.Errorf("the right to %s was not needed: the test proves nothing of it, there were %v", right, asked)
		}
	}
}

// Rights that are missing cost what they are for, and one line of the log each.
func TestRootMissingRights(t *testing.T) {
	claim(t, "12.2/missing-rights")
	const rights = `apiVersion: v1
kind: ServiceAccount
metadata: {name: secrets-store-csi-driver, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: secretproviderclasses-role}
rules:
- {apiGroups: [secrets-store.csi.x-k8s.io], resources: [secretproviderclasses], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: secretproviderclasses-rolebinding}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: secretproviderclasses-role}
subjects: [{kind: ServiceAccount, name: secrets-store-csi-driver, namespace: kube-system}]
`
	r := newNode(t, driver.Options{Account: accountWith(t, "classes-only", rights),
		Args: append(upstreamRotation(), "--service-account-annotations=azure.workload.identity/client-id")})
	applyCSIDriver(t, ", tokenRequests: [{audience: vault}]")
	r.driver.Start()
	r.register()
	r.class("app", "other", nil, "key: value")
	p := r.provide(r.driver.Providers, "other")
	for n := range 3 {
		p.say(content("v1", "a"))
		v := r.volume("app")
		r.mustPublish(v)
		p.say(content(fmt.Sprint("v", n+2), "a"))
		r.mustRepublish(v)
		r.wantTree(v, map[string]string{"a": fmt.Sprint("a v", n+2)})
		r.mustUnpublish(v)
	}
	r.driver.Stop()
	refused := map[string]bool{}
	for _, f := range r.forbidden("classes-only") {
		refused[f.Resource] = true
	}
	for resource, line := range map[string]string{
		"events": "Events on pods cannot be written",
		"secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io": "writing the SecretProviderClassPodStatus of pod",
		"csidrivers.storage.k8s.io":                                 "the CSIDriver object cannot be read",
		"serviceaccounts":                                           "annotations of service accounts cannot be read",
	} {
		if !refused[resource] {
			t.Errorf("%s were not refused, only %v", resource, refused)
		}
		if n := warnings(r.driver.Log(), line); n != 1 {
			t.Errorf("%q was said %d times", line, n)
		}
	}
}

// warnings counts the lines at WARN or above that hold text.
func warnings(log, text string) (n int) {
	for line := range strings.Lines(log) {
		if (strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR")) && strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// The names by which either driver replaces the other.
func TestNamesOfRights(t *testing.T) {
	claim(t, "12.2/rbac-names", "12.2/aggregation")
	names := map[string]bool{}
	labels := map[string]string{}
	for _, o := range api.Apply(t, filepath.Join(repository, "deploy/rbac/*.yaml")) {
		names[o.GetKind()+" "+o.GetName()] = true
		for label := range o.GetLabels() {
			if role, ok := strings.CutPrefix(label, "rbac.authorization.k8s.io/aggregate-to-"); ok {
				labels[o.GetName()] += role + " "
			}
		}
	}
	for _, want := range []string{"ServiceAccount secrets-store-csi-driver",
		"ClusterRole secretproviderclasses-role", "ClusterRoleBinding secretproviderclasses-rolebinding",
		"ClusterRole secretprovidersyncing-role", "ClusterRoleBinding secretprovidersyncing-rolebinding",
		"ClusterRole secretproviderclasses-admin-role", "ClusterRole secretproviderclasses-viewer-role",
		"ClusterRole secretproviderclasspodstatuses-viewer-role"} {
		if !names[want] {
			t.Errorf("there is no %s in %v", want, names)
		}
	}
	if len(strings.Fields(labels["secretproviderclasses-admin-role"])) != 2 || labels["secretproviderclasses-viewer-role"] != "view " ||
		labels["secretproviderclasspodstatuses-viewer-role"] != "view " {
		t.Errorf("aggregated: %v", labels)
	}
}
