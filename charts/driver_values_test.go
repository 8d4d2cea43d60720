package charts

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// Each value does what it says: a row is a value and what then is among the arguments, or in the pod.
func TestDriverArguments(t *testing.T) {
	t.Parallel()
	claim(t, "12.3/chart-arguments")
	_, plain := node(t, "")
	for _, row := range []struct {
		text          string
		more, without []string
	}{
		{"logVerbosity: 5", []string{"-v=5"}, nil},
		{"logVerbosity: '5'", []string{"-v=5"}, nil},
		{"logFormatJSON: true", []string{"--log-format-json=true"}, nil},
		{"logFormatJSON: 'false'", nil, nil},
		{"livenessProbe: {port: 1234}", []string{"--health-addr=:1234"}, []string{"--health-addr=:9808"}},
		{"maxCallRecvMsgSize: 8388608", []string{"--max-call-recv-msg-size=8388608"}, []string{"--max-call-recv-msg-size=4194304"}},
		{"enableSecretRotation: true", []string{"--enable-secret-rotation=true"}, nil},
		{"rotationPollInterval: 10m", []string{"--rotation-poll-interval=10m"}, nil},
		{"providerHealthCheck: true", []string{"--provider-health-check=true"}, nil},
		{"providerHealthCheckInterval: 5m", []string{"--provider-health-check-interval=5m"}, []string{"--provider-health-check-interval=2m"}},
		{"linux: {metricsAddr: ':8080'}", []string{"--metrics-addr=:8080"}, []string{"--metrics-addr=:8095"}},
		{"linux: {metricsAddr: 8080}", []string{"--metrics-addr=:8080"}, []string{"--metrics-addr=:8095"}},
		{"linux: {metricsAddr: '[::1]:80'}", []string{"--metrics-addr=[::1]:80"}, []string{"--metrics-addr=:8095"}},
		{"linux: {metricsAddr: ''}", nil, nil},
		{"linux: {metricsAddr: ':0'}", []string{"--metrics-addr=0"}, []string{"--metrics-addr=:8095"}},
		{"linux: {metricsAddr: 0}", []string{"--metrics-addr=0"}, []string{"--metrics-addr=:8095"}},
		{"linux: {providersDir: /p}", []string{"--provider-volume=/p"}, []string{"--provider-volume=/var/run/secrets-store-csi-providers"}},
		{"linux: {additionalProvidersDirs: [/a, /b]}", []string{"--additional-provider-volume-paths=/a,/b"},
			[]string{"--additional-provider-volume-paths=/etc/kubernetes/secrets-store-csi-providers"}},
		{"linux: {additionalProvidersDirs: null}", []string{"--additional-provider-volume-paths="},
			[]string{"--additional-provider-volume-paths=/etc/kubernetes/secrets-store-csi-providers"}},
		{"linux: {kubeletRootDir: /k}", []string{"--kubelet-registration-path=/k/plugins/csi-secrets-store/csi.sock"},
			[]string{"--kubelet-registration-path=/var/lib/kubelet/plugins/csi-secrets-store/csi.sock"}},
		{"linux: {sidecars: true}", nil, []string{"--registration-dir=/registration",
			"--kubelet-registration-path=/var/lib/kubelet/plugins/csi-secrets-store/csi.sock", "--health-addr=:9808"}},
		{"builtinProviders: [azure]", []string{"--builtin-providers=azure"}, nil},
		{"serviceAccountAnnotations: [a/b, c]", []string{"--service-account-annotations=a/b,c"}, nil},
		{"linux: {extraArgs: ['--mount-noexec']}", []string{"--mount-noexec"}, nil},
		{"{filteredWatchSecret: true, rbac: {pspEnabled: true}, linux: {crds: {enabled: false}}, anything: {else: 1}, windows: {image: {tag: a}}}", nil, nil},
	} {
		_, driver := node(t, row.text)
		var want []string
		for _, arg := range slices.Concat(plain.Args, row.more) {
			if !slices.Contains(row.without, arg) {
				want = append(want, arg)
			}
		}
		slices.Sort(want)
		if got := slices.Sorted(slices.Values(driver.Args)); !slices.Equal(got, want) {
			t.Errorf("%s: arguments are\n%v, want\n%v", row.text, got, want)
		}
	}
}

func TestDriverPod(t *testing.T) {
	t.Parallel()
	for text, holds := range map[string]func(corev1.PodSpec, corev1.Container) bool{
		"": func(p corev1.PodSpec, c corev1.Container) bool {
			return c.Image == "ghcr.io/keymount/keymount-driver:"+appVersion(t) && c.ImagePullPolicy == "IfNotPresent" &&
				len(p.Tolerations) == 1 && p.Tolerations[0].Operator == "Exists" && p.NodeSelector["kubernetes.io/os"] == "linux" &&
				c.Resources.Limits.Memory().String() == "200Mi" && c.Resources.Requests.Cpu().String() == "50m" && !p.HostNetwork
		},
		"imagePullSecrets: [{name: a}, {name: b}]": func(p corev1.PodSpec, _ corev1.Container) bool {
			return len(p.ImagePullSecrets) == 2 && p.ImagePullSecrets[1].Name == "b"
		},
		"automountServiceAccountToken: false":       func(p corev1.PodSpec, _ corev1.Container) bool { return !*p.AutomountServiceAccountToken },
		"linux: {image: {repository: a/b, tag: c}}": func(_ corev1.PodSpec, c corev1.Container) bool { return c.Image == "a/b:c" },
		"linux: {image: {digest: 'sha256:1', pullPolicy: Always}}": func(_ corev1.PodSpec, c corev1.Container) bool {
			return c.Image == "ghcr.io/keymount/keymount-driver@sha256:1" && c.ImagePullPolicy == "Always"
		},
		"linux: {env: [{name: A, value: b}]}": func(_ corev1.PodSpec, c corev1.Container) bool { return c.Env[0].Name == "A" },
		"linux: {nodeSelector: {a: b}}": func(p corev1.PodSpec, _ corev1.Container) bool {
			return p.NodeSelector["a"] == "b" && p.NodeSelector["kubernetes.io/os"] == "linux"
		},
		"linux: {hostNetwork: true}": func(p corev1.PodSpec, _ corev1.Container) bool {
			return p.HostNetwork && p.DNSPolicy == corev1.DNSClusterFirstWithHostNet
		},
		"linux: {dnsPolicy: Default}": func(p corev1.PodSpec, _ corev1.Container) bool { return p.DNSPolicy == corev1.DNSDefault },
		"linux: {metricsAddr: 'localhost:1'}": func(_ corev1.PodSpec, c corev1.Container) bool {
			return c.Ports[1].Name == "metrics" && c.Ports[1].ContainerPort == 1
		},
		"linux: {metricsAddr: '0'}": func(_ corev1.PodSpec, c corev1.Container) bool { return len(c.Ports) == 1 },
		"serviceAccount: {name: a}": func(p corev1.PodSpec, _ corev1.Container) bool { return p.ServiceAccountName == "a" },
		// A folder is mounted once, whatever the lists say.
		"linux: {providersDir: /a, additionalProvidersDirs: [/b, /a, /b]}": func(_ corev1.PodSpec, c corev1.Container) bool {
			count := 0
			for _, m := range c.VolumeMounts {
				if m.MountPath == "/a" || m.MountPath == "/b" {
					count++
				}
			}
			return count == 2
		},
	} {
		set, driver := node(t, text)
		if !holds(set.Spec.Template.Spec, driver) {
			t.Errorf("with %q the pod is %+v", text, set.Spec.Template.Spec)
		}
	}
}

// The class that keeps pods of a node from being evicted is given where the API server takes it.
func TestDriverPriority(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ namespace, version, api, text, want string }{
		{"kube-system", "v1.35.0", "", "", "system-node-critical"},
		{"secrets", "v1.35.0-eks-ab12", "", "", "system-node-critical"},
		{"secrets", "v1.35.0-gke.100", "", "", ""},
		{"secrets", "v1.35.0", "networking.gke.io/v1", "", ""},
		{"kube-system", "v1.35.0", "networking.gke.io/v1", "", "system-node-critical"},
		{"kube-system", "v1.35.0-gke.100", "", "", "system-node-critical"},
		{"secrets", "v1.35.0-gke.100", "", "linux: {priorityClassName: a}", "a"},
		{"kube-system", "v1.35.0", "", "linux: {priorityClassName: none}", ""},
	} {
		i := installation{Namespace: row.namespace, KubeVersion: row.version, APIVersions: []string{row.api}, Values: values(t, row.text)}
		set := find[*appsv1.DaemonSet](t, i.objects(t, driverChart), daemonSetName)
		if got := set.Spec.Template.Spec.PriorityClassName; got != row.want {
			t.Errorf("%+v: the class is %q", row, got)
		}
	}
}

// What cannot work is refused when it is rendered, with what to do.
func TestDriverRefusals(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"windows: {enabled: true}": "Leave windows.enabled out",
		"linux: {image: {repository: mirror.example.com/csi-secrets-store/driver, tag: v1.5.6}}": "a copy of ghcr.io/keymount/keymount-driver:" + appVersion(t),
		"{podMonitor: {enabled: true}, linux: {metricsAddr: '0'}}":                               "give it an address",
		"enableSecretRotation: often":                                                            "/enableSecretRotation",
		"rotationPollInterval: 120":                                                              "/rotationPollInterval",
		"livenessProbe: {port: http}":                                                            "/livenessProbe/port",
		"livenessProbe: {port: 0}":                                                               "/livenessProbe/port",
		"livenessProbe: {port: '655360'}":                                                        "/livenessProbe/port",
		"linux: {metricsAddr: 127.0.0.1}":                                                        "/linux/metricsAddr",
		"linux: {metricsAddr: 'localhost:'}":                                                     "/linux/metricsAddr",
		"tokenRequests: {audience: a}":                                                           "/tokenRequests",
		"rotationPollInterval: thirty":                                                           "/rotationPollInterval",
		"rotationPollInterval: 30":                                                               "/rotationPollInterval",
		"providerHealthCheckInterval: 2 m":                                                       "/providerHealthCheckInterval",
		"builtinProviders: [azur]":                                                               "/builtinProviders/0",
		"serviceAccountAnnotations: a":                                                           "/serviceAccountAnnotations",
		"linux: {env: {A: b}}":                                                                   "/linux/env",
		"linux: {tolerations: [Exists]}":                                                         "/linux/tolerations/0",
		"linux: {kubeletRootDir: kubelet}":                                                       "/linux/kubeletRootDir",
		"linux: {driver: {resources: none}}":                                                     "/linux/driver/resources",
		"linux: {image: {pullPolicy: Seldom}}":                                                   "/linux/image/pullPolicy",
		"imagePullSecrets: [a]":                                                                  "/imagePullSecrets/0",
	} {
		if got := refusal(t, driverChart, text); !strings.Contains(got, want) {
			t.Errorf("%s: %q is not in %q", text, want, got)
		}
	}
}

// An upgrade with --reuse-values takes the values of the release before, defaults of its chart included, and none of this
// chart's own: with upstream's defaults the outcome is that of this chart's.
func TestDriverReusesUpstreamValues(t *testing.T) {
	t.Parallel()
	claim(t, "12.3/chart-reuse-values")
	const mcr = `linux: {image: {repository: mcr.microsoft.com/oss/v2/kubernetes-csi/secrets-store/driver, tag: v1.5.6}}`
	before, err := os.ReadFile("testdata/upstream-values/secrets-store-csi-driver-1.6.0.yaml")
	if err != nil {
		t.Fatal(err)
	}
	chart := filepath.Join(t.TempDir(), driverChart)
	if err := os.CopyFS(chart, os.DirFS(driverChart)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(chart, "values.yaml"), before, 0o644); err != nil {
		t.Fatal(err)
	}
	want := objects(t, driverChart, "")
	for _, text := range []string{"", mcr} {
		if !equal(t, objects(t, chart, text), want) {
			t.Errorf("with %q the outcome is not the default's", text)
		}
	}
	for _, text := range []string{syncing, annotations, "podMonitor: {enabled: true}", "linux: {sidecars: true}", "rbac: {install: false}"} {
		if !equal(t, objects(t, chart, text), objects(t, driverChart, text)) {
			t.Errorf("with %q the outcome differs from the one without values of upstream's", text)
		}
	}
}

// Charts of providers have this one as a dependency, with values under its name.
func TestDriverAsDependency(t *testing.T) {
	t.Parallel()
	claim(t, "12.3/chart-dependency")
	parent := filepath.Join(t.TempDir(), "provider")
	if err := os.CopyFS(filepath.Join(parent, "charts", driverChart), os.DirFS(driverChart)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"Chart.yaml": "{apiVersion: v2, name: provider, version: 1.0.0, dependencies: [{name: secrets-store-csi-driver, version: ^1, condition: secrets-store-csi-driver.install}]}",
		"values.yaml": `secrets-store-csi-driver:
  install: true
  fullnameOverride: secrets-store-csi-driver
  filteredWatchSecret: true
  tokenRequests: [{audience: api://AzureADTokenExchange}, {audience: api://AKSIdentityBinding}]
  linux: {enabled: true, kubeletRootDir: /var/lib/kubelet, metricsAddr: ":8080", priorityClassName: "", providersDir: /var/run/secrets-store-csi-providers}
`,
	} {
		if err := os.WriteFile(filepath.Join(parent, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set := find[*appsv1.DaemonSet](t, objects(t, parent, ""), "DaemonSet/secrets-store-csi-driver")
	driver, _ := container(t, set.Spec.Template.Spec, "secrets-store")
	if !slices.Contains(driver.Args, "--metrics-addr=:8080") || set.Spec.Selector.MatchLabels["app"] != driverChart {
		t.Errorf("the DaemonSet is %+v", set.Spec)
	}
	if none := objects(t, parent, "secrets-store-csi-driver: {install: false}"); len(none) != 0 {
		t.Errorf("without install there are %v", none.names())
	}
}

// appVersion is the version of the programs that the chart installs.
func appVersion(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(driverChart, "Chart.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var chart struct{ AppVersion string }
	if err := yaml.Unmarshal(text, &chart); err != nil || chart.AppVersion == "" {
		t.Fatalf("there is no appVersion: %v", err)
	}
	return chart.AppVersion
}

// A path is what the user wrote, whatever YAML would make of it.
func TestPathsOfAnyForm(t *testing.T) {
	t.Parallel()
	const root, providers, more = "/k: #1", "/p: #2", "/m: #3"
	set, _ := node(t, `linux: {kubeletRootDir: "`+root+`", providersDir: "`+providers+`", additionalProvidersDirs: ["`+more+`"]}`)
	var paths []string
	for _, volume := range set.Spec.Template.Spec.Volumes {
		paths = append(paths, volume.HostPath.Path)
	}
	want := []string{root + "/pods", root + "/plugins_registry/", root + "/plugins/csi-secrets-store/", providers, more}
	if !slices.Equal(paths, want) {
		t.Errorf("the node's folders are %q, want %q", paths, want)
	}
}
