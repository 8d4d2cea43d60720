//go:build integration && linux

package integration

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"keymount/test/integration/kubelet"
)

// statusOf returns the one status object of the volume at a target.
func (r *rig) statusOf(target string) *unstructured.Unstructured {
	r.Helper()
	var found []unstructured.Unstructured
	for _, object := range r.statuses() {
		if at, _, _ := unstructured.NestedString(object.Object, "status", "targetPath"); at == target {
			found = append(found, object)
		}
	}
	if len(found) != 1 {
		r.Fatalf("%d status objects for %s, want 1", len(found), target)
	}
	return &found[0]
}

// Defects of upstream's driver in what the cluster is told.
func TestRootDefectsOfStatus(t *testing.T) {
	r := newRig(t, slowly...)
	r.row("10.1/14-status-names-collide", func(r *rig) {
		class, other := "b-"+r.ns+"-c", "c"
		r.scriptedClass(other)
		r.class(class, other, nil, "objects: x")
		first, a := r.pod("a", class)
		second, b := r.pod("a-"+r.ns+"-b", other) // both are a-NAMESPACE-b-NAMESPACE-c
		r.wantStatuses(map[*kubelet.Volume]*corev1.Pod{a[0]: first, b[0]: second})
	})
	r.row("10.1/14-status-names-too-long", func(r *rig) {
		class := strings.Repeat("l", 250)
		r.scriptedClass("long")
		r.class(class, "long", nil, "objects: x")
		pod, volumes := r.pod(strings.Repeat("p", 200), class)
		r.wantStatuses(map[*kubelet.Volume]*corev1.Pod{volumes[0]: pod})
	})
	r.row("10.1/14-class-mounted-twice", func(r *rig) {
		r.scriptedClass("twice")
		pod, volumes := r.pod("", "twice", "twice")
		r.wantStatuses(map[*kubelet.Volume]*corev1.Pod{volumes[0]: pod, volumes[1]: pod})
	})
	r.row("10.1/15-failed-rotation-is-visible", failedRotation)
	r.row("10.1/16-percent-in-events", func(r *rig) {
		const text = "reading db: 100%d of %s, 50% of %!v"
		r.scriptedClass("percent").fail(status.Error(codes.InvalidArgument, text))
		if err := r.volume("percent").Publish(r.Context()); err == nil || !strings.Contains(err.Error(), text) {
			r.Errorf("kubelet is told %v", err)
		}
		r.awaitEvent("Warning FailedToMountSecrets: SecretProviderClass percent: " + text)
	})
}

// wantStatuses publishes the volumes, and wants one object for each that belongs to its pod.
func (r *rig) wantStatuses(volumes map[*kubelet.Volume]*corev1.Pod) {
	r.Helper()
	for v := range volumes {
		r.mustPublish(v)
		r.wantFiles(v, map[string]string{"a": "a v1"})
	}
	for v, pod := range volumes {
		object := r.statusOf(v.Target)
		owners := object.GetOwnerReferences()
		if len(owners) != 1 || owners[0].UID != pod.UID {
			r.Errorf("%s belongs to %v, want pod %s", object.GetName(), owners, pod.Name)
		}
		if objects, _, _ := unstructured.NestedSlice(object.Object, "status", "objects"); len(objects) != 1 {
			r.Errorf("%s lists %v", object.GetName(), objects)
		}
	}
}

// Kubelet is told OK, since a FailedMount on a pod that runs helps nobody: so all others must be told.
func failedRotation(r *rig) {
	p := r.scriptedClass("failing")
	v := r.volume("failing")
	r.mustPublish(v)
	p.fail(status.Error(codes.Unavailable, "reading db: the vault says no"))
	r.refreshNow(v, "failing", p, "1")
	r.wantFiles(v, map[string]string{"a": "a v1"})
	r.awaitEvent("Warning MountRotationFailed: SecretProviderClass failing: the volume could not be refreshed and holds what it held: reading db: the vault says no")

	object := r.statusOf(v.Target)
	if mounted, _, _ := unstructured.NestedBool(object.Object, "status", "mounted"); !mounted {
		r.Error("the volume is mounted")
	}
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	if len(conditions) != 1 {
		r.Fatalf("conditions %v", conditions)
	}
	c := conditions[0].(map[string]any)
	if message, _ := c["message"].(string); c["type"] != "UpToDate" || c["status"] != "False" || c["reason"] != "Unavailable" || !strings.Contains(message, "the vault says no") {
		r.Errorf("condition %v", c)
	}
	for _, texts := range [][]string{
		{"rotation_reconcile_error_total{", `provider="failing"`, " 1"},
		{"keymount_volume_failures_total{", `provider="failing"`, `kind="unavailable"`, `state="kept"`, " 1"},
	} {
		if lines := r.metric(texts...); len(lines) != 1 {
			r.Errorf("metrics with %q: %q", texts, lines)
		}
	}
	if !strings.Contains(r.driver.Log(), "volume keeps its files, it could not be refreshed") {
		r.Error("it is not logged")
	}
}
