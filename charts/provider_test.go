package charts

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

const (
	providerChart     = "csi-secrets-store-provider-azure"
	providerDaemonSet = "DaemonSet/test-csi-secrets-store-provider-azure"
	withoutDriver     = "secrets-store-csi-driver: {install: false}"
	upstreamProvider  = "testdata/upstream-values/csi-secrets-store-provider-azure-1.8.2.yaml"
)

// azure returns the DaemonSet of the provider's chart, without the driver, and its container for some values.
func azure(t *testing.T, text string) (*appsv1.DaemonSet, corev1.Container) {
	t.Helper()
	all := values(t, text)
	maps.Copy(all, values(t, withoutDriver))
	set := find[*appsv1.DaemonSet](t, installation{Values: all}.objects(t, providerChart), providerDaemonSet)
	provider, _ := container(t, set.Spec.Template.Spec, "provider-azure-installer")
	return set, provider
}

func upstreamValues(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(upstreamProvider)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What of upstream's objects is there, by its name, with the driver and without.
func TestProviderObjects(t *testing.T) {
	t.Parallel()
	always := []string{providerDaemonSet, "ServiceAccount/csi-secrets-store-provider-azure"}
	driver := []string{"DaemonSet/secrets-store-csi-driver", csiDriverName, "ServiceAccount/secrets-store-csi-driver",
		"ClusterRole/secretproviderclasses-role", "ClusterRoleBinding/secretproviderclasses-rolebinding",
		"ClusterRole/secretproviderclasses-admin-role", "ClusterRole/secretproviderclasses-viewer-role",
		"ClusterRole/secretproviderclasspodstatuses-viewer-role"}
	for text, want := range map[string][]string{
		"":                slices.Concat(always, driver),
		upstreamValues(t): slices.Concat(always, driver),
		withoutDriver:     always,
		withoutDriver + "\npodMonitor: {enabled: true}":     append(always, "PodMonitor/test-csi-secrets-store-provider-azure"),
		withoutDriver + "\nlinux: {enabled: false}":         {"ServiceAccount/csi-secrets-store-provider-azure"},
		withoutDriver + "\nrbac: {install: false}":          {providerDaemonSet},
		withoutDriver + "\nserviceAccount: {create: false}": {providerDaemonSet},
	} {
		slices.Sort(want)
		if got := objects(t, providerChart, text).names(); !slices.Equal(got, want) {
			t.Errorf("with %.80q there are\n%v, want\n%v", text, got, want)
		}
	}
}

// An upgrade finds upstream's pods by the selector, which cannot be changed, and others find them by names and labels.
func TestProviderNames(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", upstreamValues(t)} {
		set, provider := azure(t, text)
		pod := set.Spec.Template
		if set.Namespace != "kube-system" || len(set.Spec.Selector.MatchLabels) != 1 || set.Spec.Selector.MatchLabels["app"] != providerChart ||
			pod.Labels["app"] != providerChart || set.Labels["app"] != providerChart || pod.Spec.ServiceAccountName != providerChart {
			t.Errorf("the DaemonSet is %+v", set)
		}
		if provider.Image != "ghcr.io/keymount/keymount-azure:"+appVersion(t) {
			t.Errorf("the image is %s", provider.Image)
		}
		if v := pod.Spec.Volumes[0]; provider.VolumeMounts[0].MountPath != "/provider" || v.HostPath.Path != "/var/run/secrets-store-csi-providers" {
			t.Errorf("the folder is %v at %v", v, provider.VolumeMounts)
		}
		if !pod.Spec.HostNetwork || pod.Spec.DNSPolicy != corev1.DNSClusterFirstWithHostNet {
			t.Errorf("network %v, DNS %s", pod.Spec.HostNetwork, pod.Spec.DNSPolicy)
		}
	}
	release := installation{Release: "my-csi-secrets-store-provider-azure", Values: values(t, withoutDriver)}
	find[*appsv1.DaemonSet](t, release.objects(t, providerChart), "DaemonSet/my-csi-secrets-store-provider-azure")
}

// Every value that becomes an argument does so, and as upstream's binary takes it.
func TestProviderArguments(t *testing.T) {
	t.Parallel()
	standard := []string{"--endpoint=unix:///provider/azure.sock", "--construct-pem-chain=true", "--healthz-port=8989", "--healthz-path=/healthz",
		"--healthz-timeout=5s", "--prometheus-port=8898"}
	if _, provider := azure(t, ""); !slices.Equal(provider.Args, standard) {
		t.Errorf("arguments are %q, want %q", provider.Args, standard)
	}
	if _, provider := azure(t, upstreamValues(t)); !slices.Equal(provider.Args, standard) {
		t.Errorf("with upstream's values, arguments are %q, want %q", provider.Args, standard)
	}
	for text, want := range map[string]string{
		"constructPEMChain: false":                            "--construct-pem-chain=false",
		`constructPEMChain: "false"`:                          "--construct-pem-chain=false",
		"writeCertAndKeyInSeparateFiles: true":                "--write-cert-and-key-in-separate-files=true",
		"cloudName: AzureChinaCloud":                          "--cloud-name=AzureChinaCloud",
		"logVerbosity: 5":                                     "-v=5",
		`logVerbosity: "5"`:                                   "-v=5",
		"logFormatJSON: true":                                 "--log-format-json=true",
		"metricsAddr: 9000":                                   "--prometheus-port=9000",
		`metricsAddr: "0.0.0.0:9000"`:                         "--prometheus-port=9000",
		`metricsAddr: "0"`:                                    "--prometheus-port=0",
		"metricsAddr: 0":                                      "--prometheus-port=0",
		`metricsAddr: ":9000"`:                                "--prometheus-port=9000",
		"linux: {healthzPort: 1, healthzTimeout: 1m}":         "--healthz-port=1",
		`linux: {healthzPort: "8990"}`:                        "--healthz-port=8990",
		"linux: {healthzPath: /alive}":                        "--healthz-path=/alive",
		`linux: {customUserAgent: "a: {b} #c"}`:               "--custom-user-agent=a: {b} #c",
		"linux: {extraArgs: [--share-reads-for=10s]}":         "--share-reads-for=10s",
		`linux: {extraArgs: ["--token-proxy-url=https://a"]}`: "--token-proxy-url=https://a",
	} {
		if _, provider := azure(t, text); !slices.Contains(provider.Args, want) {
			t.Errorf("with %s, arguments are %q, want %s", text, provider.Args, want)
		}
	}
}

// Probes and ports follow the arguments.
func TestProviderProbes(t *testing.T) {
	t.Parallel()
	_, provider := azure(t, "{metricsAddr: 8899, linux: {healthzPort: 8990, healthzPath: /alive}}")
	ports := map[string]int32{}
	for _, port := range provider.Ports {
		ports[port.Name] = port.ContainerPort
	}
	if !maps.Equal(ports, map[string]int32{"healthz": 8990, "metrics": 8899}) {
		t.Errorf("ports are %v", ports)
	}
	for path, probe := range map[string]*corev1.Probe{"/alive": provider.LivenessProbe, "/alive ": provider.StartupProbe, "/readyz": provider.ReadinessProbe} {
		if got := probe.HTTPGet; got.Path != strings.TrimSpace(path) || got.Port.StrVal != "healthz" || got.Host != "" {
			t.Errorf("a probe asks %v, want %s", got, path)
		}
	}
	if _, provider = azure(t, `metricsAddr: "0"`); len(provider.Ports) != 1 {
		t.Errorf("ports are %v", provider.Ports)
	}
}

// As little as writing a socket into root's folder allows.
func TestProviderSecurity(t *testing.T) {
	t.Parallel()
	set, provider := azure(t, "")
	s, pod := provider.SecurityContext, set.Spec.Template.Spec
	if s.Privileged != nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || *s.RunAsUser != 0 ||
		!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) != 0 {
		t.Errorf("the security context is %+v", s)
	}
	if pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault || *pod.AutomountServiceAccountToken || pod.HostPID || pod.HostIPC {
		t.Errorf("the pod is %+v", pod)
	}
	// The API server refuses the two together.
	for _, text := range []string{"linux: {privileged: true}", "linux: {securityContext: {privileged: true}}"} {
		if _, provider = azure(t, text); !*provider.SecurityContext.Privileged || provider.SecurityContext.AllowPrivilegeEscalation != nil {
			t.Errorf("%s: the security context is %+v", text, provider.SecurityContext)
		}
	}
	if set, _ = azure(t, "linux: {hostNetwork: false}"); set.Spec.Template.Spec.HostNetwork {
		t.Error("hostNetwork=false has no effect")
	}
	for where, want := range map[string]string{"v1.35.0 secrets": "system-node-critical", "v1.35.0-gke.1 secrets": "", "v1.35.0-gke.1 kube-system": "system-node-critical"} {
		version, namespace, _ := strings.Cut(where, " ")
		i := installation{KubeVersion: version, Namespace: namespace, Values: values(t, withoutDriver)}
		set := find[*appsv1.DaemonSet](t, i.objects(t, providerChart), providerDaemonSet)
		if got := set.Spec.Template.Spec.PriorityClassName; got != want {
			t.Errorf("on %s the priority class is %q, want %q", where, got, want)
		}
	}
}

// The driver gets what this chart decides for it, and what the user does.
func TestProviderDriver(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", upstreamValues(t)} {
		set := objects(t, providerChart, text)
		pod := find[*appsv1.DaemonSet](t, set, "DaemonSet/secrets-store-csi-driver").Spec.Template.Spec
		driver, _ := container(t, pod, "secrets-store")
		if driver.Image != "ghcr.io/keymount/keymount-driver:"+appVersion(t) || !slices.Contains(driver.Args, "--metrics-addr=:8080") ||
			!slices.Contains(driver.Args, "--rotation-poll-interval=2m") || slices.Contains(driver.Args, "--enable-secret-rotation=true") {
			t.Errorf("the driver is %s %q", driver.Image, driver.Args)
		}
		csi := find[*storagev1.CSIDriver](t, set, csiDriverName)
		var audiences []string
		for _, request := range csi.Spec.TokenRequests {
			audiences = append(audiences, request.Audience)
		}
		if want := []string{"api://AzureADTokenExchange", "api://AKSIdentityBinding"}; !slices.Equal(audiences, want) {
			t.Errorf("audiences are %v, want %v", audiences, want)
		}
	}
	// With a string Helm takes the default, as upstream's users may know.
	find[*storagev1.CSIDriver](t, objects(t, providerChart, "secrets-store-csi-driver: {install: 'true'}"), csiDriverName)
	set := objects(t, providerChart, "secrets-store-csi-driver: {enableSecretRotation: true, rotationPollInterval: 30s, syncSecret: {enabled: true}, linux: {sidecars: true}}")
	driver, _ := container(t, find[*appsv1.DaemonSet](t, set, "DaemonSet/secrets-store-csi-driver").Spec.Template.Spec, "secrets-store")
	if !slices.Contains(driver.Args, "--enable-secret-rotation=true") || !slices.Contains(driver.Args, "--rotation-poll-interval=30s") ||
		set["ClusterRole/secretprovidersyncing-role"] == nil || !*find[*storagev1.CSIDriver](t, set, csiDriverName).Spec.RequiresRepublish {
		t.Errorf("the driver is %q, objects are %v", driver.Args, set.names())
	}
}

// What cannot work is refused with what to do instead.
func TestProviderRefusals(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"enableArcExtension: true":                                                    "this chart is not the Azure Arc extension",
		`enableArcExtension: "true"`:                                                  "this chart is not the Azure Arc extension",
		"windows: {enabled: true}":                                                    "there is no image of this provider for Windows",
		"secrets-store-csi-driver: {windows: {enabled: true}}":                        "the driver makes no volumes on Windows",
		"secrets-store-csi-driver: {install: maybe}":                                  "install",
		"secrets-store-csi-driver: {install: 'false'}":                                "/secrets-store-csi-driver/install",
		`{metricsAddr: "0", podMonitor: {enabled: true}}`:                             "switches the metrics off",
		`metricsAddr: "0.0.0.0"`:                                                      "metricsAddr",
		"linux: {healthzPath: /readyz}":                                               "linux.healthzPath=/readyz",
		"linux: {healthzPath: healthz}":                                               "healthzPath",
		"linux: {healthzPort: 0}":                                                     "healthzPort",
		"logVerbosity: much":                                                          "logVerbosity",
		"linux: {image: {repository: example.com/azure/provider-azure, tag: v1.8.2}}": "looks like a copy of upstream's provider",
	} {
		if got := refusal(t, providerChart, text); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %q", text, got, want)
		}
	}
}

// values.yaml has every key of upstream's chart with its default, but for those of parts that are not here.
func TestProviderDefaults(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(providerChart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := regexp.MustCompile(`^(windows\.|promMdmConverter|mdm|msiAdapter|telegraf|amacoreagent|fluentd|arc` +
		`|secrets-store-csi-driver\.(windows|linux\.(registrarImage|livenessProbeImage|crds)))|image\.(repository|tag)$`)
	var compare func(path string, ours, theirs map[string]any)
	compare = func(path string, ours, theirs map[string]any) {
		for key, theirValue := range theirs {
			name := path + key
			ourValue, there := ours[key]
			ourMap, isMap := ourValue.(map[string]any)
			theirMap, isTheirs := theirValue.(map[string]any)
			switch {
			case elsewhere.MatchString(name):
			case !there:
				t.Errorf("%s is not in values.yaml", name)
			case isMap && isTheirs:
				compare(name+".", ourMap, theirMap)
			case fmt.Sprint(ourValue) != fmt.Sprint(theirValue):
				t.Errorf("%s is %v, with upstream %v", name, ourValue, theirValue)
			}
		}
	}
	compare("", values(t, string(text)), values(t, upstreamValues(t)))
}

// A package of the chart is whole: what charts/ leads to is in it, and renders to the same.
func TestProviderPackage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := runHelm(t, nil, "package", providerChart, "--destination", dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(files) != 1 {
		t.Fatalf("packages: %v, %v", files, err)
	}
	i := installation{Values: map[string]any{}}
	want, err := i.render(t, providerChart)
	if err != nil {
		t.Fatal(err)
	}
	got, err := i.render(t, files[0])
	if err != nil || string(got) != string(want) {
		t.Errorf("the package renders to something else than the chart (%v):\n%s", err, got)
	}
}

// The manifest of deploy/ is the chart's, by the names of upstream's manifest, so that either replaces the other.
func TestProviderPlainManifests(t *testing.T) {
	t.Parallel()
	all := values(t, withoutDriver)
	all["fullnameOverride"] = providerChart
	out, err := installation{Release: "plain", Values: all}.render(t, providerChart)
	if err != nil {
		t.Fatal(err)
	}
	// One file, as upstream has it.
	text := append(manifest(t, out, "ServiceAccount"), "---\n"...)
	text = append(text, manifest(t, out, "DaemonSet")...)
	golden(t, "../deploy/provider-azure-installer.yaml", text)
	set := parse(t, text)
	if got, want := set.names(), []string{"DaemonSet/" + providerChart, "ServiceAccount/" + providerChart}; !slices.Equal(got, want) {
		t.Errorf("objects are %v, want %v", got, want)
	}
	if set["DaemonSet/"+providerChart].GetNamespace() != "kube-system" {
		t.Error("it is not for kube-system, where upstream's is")
	}
}
