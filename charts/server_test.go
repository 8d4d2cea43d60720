//go:build integration && linux

package charts

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"keymount/test/integration/apiserver"
)

const upstreamChart = "testdata/upstream-charts/secrets-store-csi-driver"

// A cluster is an API server that helm installs in.
type cluster struct {
	*apiserver.Server
	kubeconfig string
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	server := apiserver.Start(t)
	admin := server.Admin()
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []any{map[string]any{"name": "test", "cluster": map[string]any{"server": admin.Host, "certificate-authority": admin.CAFile}}},
		"users":    []any{map[string]any{"name": "test", "user": map[string]any{"client-certificate": admin.CertFile, "client-key": admin.KeyFile}}},
		"contexts": []any{map[string]any{"name": "test", "context": map[string]any{"cluster": "test", "user": "test"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return &cluster{server, path}
}

// helm runs helm in kube-system. Nothing runs the pods, so it does not wait for them.
func (c *cluster) helm(t *testing.T, args ...string) {
	t.Helper()
	if out, err := runHelm(t, nil, append(args, "--kubeconfig", c.kubeconfig, "--namespace", "kube-system")...); err != nil {
		t.Fatalf("helm %v: %v\n%s", args, err, out)
	}
}

// get reads an object into one of the API's types, and says whether it is there.
func (c *cluster) get(t *testing.T, resource schema.GroupVersionResource, namespace, name string, into any) bool {
	t.Helper()
	var object *unstructured.Unstructured
	var err error
	if namespace == "" {
		object, err = c.Client().Resource(resource).Get(t.Context(), name, metav1.GetOptions{})
	} else {
		object, err = c.Client().Resource(resource).Namespace(namespace).Get(t.Context(), name, metav1.GetOptions{})
	}
	if apierrors.IsNotFound(err) {
		return false
	}
	if err == nil && into != nil {
		err = runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, into)
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

func (c *cluster) daemonSet(t *testing.T, name string) *appsv1.DaemonSet {
	t.Helper()
	set := &appsv1.DaemonSet{}
	if !c.get(t, appsv1.SchemeGroupVersion.WithResource("daemonsets"), "kube-system", name, set) {
		t.Fatalf("there is no DaemonSet %s", name)
	}
	return set
}

func (c *cluster) account(t *testing.T) (*corev1.ServiceAccount, bool) {
	t.Helper()
	account := &corev1.ServiceAccount{}
	there := c.get(t, corev1.SchemeGroupVersion.WithResource("serviceaccounts"), "kube-system", driverChart, account)
	return account, there
}

// What only an API server can say. The tests run one after the other: most of what the chart installs is cluster-wide.
func TestOnAServer(t *testing.T) {
	c := startCluster(t)
	t.Run("upgrade-from-upstream", c.upgradeFromUpstream)
	t.Run("installations", c.installations)
	t.Run("service-account", c.serviceAccount)
	t.Run("plain-manifests", c.plainManifests)
}

// A release of upstream's chart becomes one of this chart's and goes back, with its values; then it goes.
func (c *cluster) upgradeFromUpstream(t *testing.T) {
	claim(t, "12.3/chart-upgrade", "12.3/chart-rollback")
	const name = "csi-secrets-store-csi-driver"
	c.helm(t, "install", "csi", upstreamChart, "--set", "enableSecretRotation=true,rotationPollInterval=1m")
	before := c.daemonSet(t, name)

	c.helm(t, "upgrade", "csi", driverChart, "--reuse-values")
	after := c.daemonSet(t, name)
	driver, index := container(t, after.Spec.Template.Spec, "secrets-store")
	if after.UID != before.UID || index != 0 || driver.Image != "ghcr.io/keymount/keymount-driver:"+appVersion(t) ||
		!slices.Contains(driver.Args, "--enable-secret-rotation=true") || !slices.Contains(driver.Args, "--rotation-poll-interval=1m") {
		t.Errorf("after the upgrade the DaemonSet is %+v", after)
	}
	if n := len(after.Spec.Template.Spec.Containers); n != 1 {
		t.Errorf("%d containers are there after the upgrade", n)
	}
	republish := &storagev1.CSIDriver{}
	if !c.get(t, storagev1.SchemeGroupVersion.WithResource("csidrivers"), "", "secrets-store.csi.k8s.io", republish) || !*republish.Spec.RequiresRepublish {
		t.Errorf("after the upgrade the CSIDriver object is %+v", republish)
	}

	c.helm(t, "rollback", "csi", "1")
	back := c.daemonSet(t, name)
	driver, index = container(t, back.Spec.Template.Spec, "secrets-store")
	if back.UID != before.UID || index != 1 || driver.Image != "registry.k8s.io/csi-secrets-store/driver:v1.6.0" {
		t.Errorf("after the rollback the DaemonSet is %+v", back)
	}
	if driver.StartupProbe != nil || driver.ReadinessProbe != nil {
		t.Errorf("after the rollback upstream's driver has probes of this chart: %+v", driver)
	}
	for _, volume := range driver.VolumeMounts {
		if volume.ReadOnly || volume.Name == "registration-dir" {
			t.Errorf("after the rollback upstream's driver has %+v of this chart", volume)
		}
	}

	c.helm(t, "upgrade", "csi", driverChart, "--reset-values", "--set", "linux.sidecars=true")
	if n := len(c.daemonSet(t, name).Spec.Template.Spec.Containers); n != 3 {
		t.Errorf("%d containers are there with sidecars", n)
	}
	c.helm(t, "uninstall", "csi")
	if c.get(t, appsv1.SchemeGroupVersion.WithResource("daemonsets"), "kube-system", name, nil) {
		t.Error("the DaemonSet is still there after helm uninstall")
	}
}

// Every object of every installation is one that an API server takes, and the definitions stay when the release goes.
func (c *cluster) installations(t *testing.T) {
	claim(t, "12.3/chart-installs")
	definitions := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	for _, i := range installations(t, driverChart) {
		text, err := yaml.Marshal(i.Values)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		// There is no Prometheus operator.
		c.helm(t, "install", "csi", driverChart, "--values", path, "--set", "podMonitor.enabled=false")
		c.helm(t, "uninstall", "csi")
		if !c.get(t, definitions, "", "secretproviderclasses.secrets-store.csi.x-k8s.io", nil) {
			t.Error("the definitions went with the release")
		}
	}
}

// Pods have a service account in any case, and one that is there stays whoever's it was.
func (c *cluster) serviceAccount(t *testing.T) {
	claim(t, "12.3/chart-service-account")
	c.helm(t, "install", "csi", driverChart, "--set", "rbac.install=false")
	made, there := c.account(t)
	c.helm(t, "upgrade", "csi", driverChart, "--set", "rbac.install=false,logVerbosity=2")
	if kept, still := c.account(t); !there || !still || kept.UID != made.UID {
		t.Errorf("the service account that pods need is %+v, then %+v", made, kept)
	}
	c.helm(t, "uninstall", "csi")

	c.ServiceAccount(t, "kube-system", driverChart, map[string]string{"theirs": "true"})
	theirs, _ := c.account(t)
	c.helm(t, "install", "csi", driverChart, "--set", "rbac.install=false")
	c.helm(t, "uninstall", "csi")
	if kept, still := c.account(t); !still || kept.UID != theirs.UID || kept.Labels["app"] != "" {
		t.Errorf("the service account of somebody else is now %+v", kept)
	}
}

// kubectl apply takes the plain manifests as they are.
func (c *cluster) plainManifests(t *testing.T) {
	c.Apply(t, "../deploy/*.yaml", "../deploy/rbac/*.yaml")
	c.daemonSet(t, "csi-secrets-store")
}
