package charts

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// What Helm writes for itself, and the names of templates, are of no use to kubectl.
var helmOnly = regexp.MustCompile(`(?m)^ +(helm\.sh/chart|app\.kubernetes\.io/(instance|managed-by)): .*\n|^# Source: .*\n`)

// manifest returns the object of a kind among what helm rendered, for kubectl.
func manifest(t *testing.T, rendered []byte, kind string) []byte {
	t.Helper()
	for _, document := range split(rendered) {
		if bytes.Contains(document, []byte("\nkind: "+kind+"\n")) {
			document = helmOnly.ReplaceAll(document, nil)
			head := "# Made from the chart by 'make generate'.\n"
			return append([]byte(head), append(bytes.TrimSpace(document), '\n')...)
		}
	}
	t.Fatalf("there is no %s in:\n%s", kind, rendered)
	return nil
}

// The manifests of deploy/ are the chart's objects by the names of upstream's manifests, so that either replaces the other. The
// roles are in deploy/rbac.
func TestPlainManifests(t *testing.T) {
	t.Parallel()
	claim(t, "12.2/plain-manifests")
	names := map[string]any{"fullnameOverride": "csi-secrets-store", "nameOverride": "csi-secrets-store"}
	i := installation{Release: "plain", Values: names}
	out, err := i.render(t, driverChart)
	if err != nil {
		t.Fatal(err)
	}
	daemonSet := manifest(t, out, "DaemonSet")
	golden(t, "../deploy/secrets-store-csi-driver.yaml", daemonSet)
	// Kubelet is to republish whether rotation is on or not: then the driver's arguments alone decide.
	names["enableSecretRotation"] = true
	if out, err = i.render(t, driverChart); err != nil {
		t.Fatal(err)
	}
	csiDriver := manifest(t, out, "CSIDriver")
	golden(t, "../deploy/csidriver.yaml", csiDriver)

	set := find[*appsv1.DaemonSet](t, parse(t, daemonSet), "DaemonSet/csi-secrets-store")
	pod := set.Spec.Template
	if set.Namespace != "kube-system" || len(set.Spec.Selector.MatchLabels) != 1 || set.Spec.Selector.MatchLabels["app"] != "csi-secrets-store" ||
		pod.Labels["app"] != "csi-secrets-store" || pod.Spec.ServiceAccountName != "secrets-store-csi-driver" {
		t.Errorf("the DaemonSet is not the one that upstream's manifests have: %+v", set)
	}
	if driver := find[*storagev1.CSIDriver](t, parse(t, csiDriver), csiDriverName); !*driver.Spec.RequiresRepublish {
		t.Error("kubelet would not republish")
	}
}

// Helm, kubectl and Go see the same definitions.
func TestDefinitions(t *testing.T) {
	files, err := filepath.Glob("../api/crds/*.yaml")
	if err != nil || len(files) != 2 {
		t.Fatalf("api/crds: %v, %v", files, err)
	}
	for _, file := range files {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, filepath.Join(driverChart, "crds", filepath.Base(file)), want)
		golden(t, filepath.Join("../deploy", filepath.Base(file)), want)
	}
	for _, folder := range []string{filepath.Join(driverChart, "crds"), "../deploy"} {
		if copies, err := filepath.Glob(filepath.Join(folder, "secrets-store.csi.x-k8s.io_*")); err != nil || len(copies) != len(files) {
			t.Errorf("%s holds %v", folder, copies)
		}
	}
}
