//go:build integration && linux

package charts

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

const upstreamProviderChart = "testdata/upstream-charts/csi-secrets-store-provider-azure"

// What only an API server can say of the provider's chart, and of the driver's in it.
func TestProviderOnAServer(t *testing.T) {
	c := startCluster(t)
	t.Run("upgrade-from-upstream", c.upgradeProvider)
	t.Run("driver-on-and-off", c.driverOnAndOff)
	t.Run("installations", c.providerInstallations)
}

// A release of upstream's chart becomes one of this chart's and goes back, with its values; then it goes.
func (c *cluster) upgradeProvider(t *testing.T) {
	const name = "csi-csi-secrets-store-provider-azure"
	c.helm(t, "install", "csi", upstreamProviderChart, "--set", "secrets-store-csi-driver.enableSecretRotation=true,logVerbosity=2")
	before, driverBefore := c.daemonSet(t, name), c.daemonSet(t, driverChart)

	c.helm(t, "upgrade", "csi", providerChart, "--reuse-values")
	after, driverAfter := c.daemonSet(t, name), c.daemonSet(t, driverChart)
	provider, _ := container(t, after.Spec.Template.Spec, "provider-azure-installer")
	if after.UID != before.UID || provider.Image != "ghcr.io/keymount/keymount-azure:"+appVersion(t) || !slices.Contains(provider.Args, "-v=2") ||
		provider.ReadinessProbe == nil || len(provider.Ports) != 2 {
		t.Errorf("after the upgrade the provider is %+v", after)
	}
	driver, _ := container(t, driverAfter.Spec.Template.Spec, "secrets-store")
	if driverAfter.UID != driverBefore.UID || driver.Image != "ghcr.io/keymount/keymount-driver:"+appVersion(t) ||
		!slices.Contains(driver.Args, "--enable-secret-rotation=true") {
		t.Errorf("after the upgrade the driver is %+v", driverAfter)
	}

	c.helm(t, "rollback", "csi", "1")
	back := c.daemonSet(t, name)
	provider, _ = container(t, back.Spec.Template.Spec, "provider-azure-installer")
	if back.UID != before.UID || provider.Image != "mcr.microsoft.com/oss/v2/azure/secrets-store/provider-azure:v1.8.2" ||
		provider.ReadinessProbe != nil || provider.StartupProbe != nil || len(provider.Ports) != 1 || provider.LivenessProbe.HTTPGet.Port.IntVal != 8989 {
		t.Errorf("after the rollback the provider is %+v", back)
	}
	c.helm(t, "uninstall", "csi")
	for _, gone := range []string{name, driverChart} {
		if c.get(t, appsv1.SchemeGroupVersion.WithResource("daemonsets"), "kube-system", gone, nil) {
			t.Errorf("%s is still there after helm uninstall", gone)
		}
	}
}

// The driver comes and goes with its value; definitions, with all classes, stay.
func (c *cluster) driverOnAndOff(t *testing.T) {
	there := func() bool {
		return c.get(t, appsv1.SchemeGroupVersion.WithResource("daemonsets"), "kube-system", driverChart, nil)
	}
	c.helm(t, "install", "csi", providerChart)
	if !there() {
		t.Error("the driver is not installed")
	}
	c.helm(t, "upgrade", "csi", providerChart, "--set", "secrets-store-csi-driver.install=false")
	if there() {
		t.Error("install=false leaves the driver")
	}
	definitions := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	if !c.get(t, definitions, "", "secretproviderclasses.secrets-store.csi.x-k8s.io", nil) {
		t.Error("the definitions went with the driver")
	}
	c.helm(t, "uninstall", "csi")
	if c.get(t, corev1.SchemeGroupVersion.WithResource("serviceaccounts"), "kube-system", providerChart, nil) {
		t.Error("the service account is still there after helm uninstall")
	}
}

// Every object of every installation is one that an API server takes.
func (c *cluster) providerInstallations(t *testing.T) {
	for _, i := range installations(t, providerChart) {
		text, err := yaml.Marshal(i.Values)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		// There is no Prometheus operator.
		c.helm(t, "install", "csi", providerChart, "--values", path, "--set", "podMonitor.enabled=false")
		c.helm(t, "uninstall", "csi")
	}
}
