package charts

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// Mounting where kubelet sees it takes a privileged container; nothing else that a pod can give away is given.
func TestDriverContainerIsTight(t *testing.T) {
	t.Parallel()
	claim(t, "10.3/container-settings")
	for _, text := range []string{"", "linux: {sidecars: true}", "{" + syncing + ", " + annotations + ", builtinProviders: [azure]}"} {
		set, _ := node(t, text)
		pod := set.Spec.Template.Spec
		if pod.HostNetwork || pod.HostPID || pod.HostIPC || pod.ShareProcessNamespace != nil {
			t.Errorf("%q: the pod shares the node's namespaces: %+v", text, pod)
		}
		if s := pod.SecurityContext; s == nil || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%q: no seccomp profile", text)
		}
		for _, c := range pod.Containers {
			s := c.SecurityContext
			switch {
			case s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem:
				t.Errorf("%q: %s may write to its image", text, c.Name)
			case c.Name == "secrets-store":
				if !*s.Privileged || *s.RunAsUser != 0 {
					t.Errorf("%q: the driver could not mount: %+v", text, s)
				}
			case s.Privileged != nil || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0:
				t.Errorf("%q: %s has more than it needs: %+v", text, c.Name, s)
			}
			if c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%q: %s has no memory limit", text, c.Name)
			}
			for _, port := range c.Ports {
				if port.HostPort != 0 {
					t.Errorf("%q: %s listens on the node's port %d", text, c.Name, port.HostPort)
				}
			}
		}
	}
}

// The driver sees five folders of the node, and writes to what is kubelet's and its own.
func TestDriverFolders(t *testing.T) {
	t.Parallel()
	claim(t, "10.3/container-folders")
	set, driver := node(t, "")
	var got []string
	for _, m := range driver.VolumeMounts {
		how := "rw"
		if m.ReadOnly {
			how = "ro"
		}
		if m.MountPropagation != nil {
			how += " " + string(*m.MountPropagation)
		}
		got = append(got, hostPath(set, m.Name)+" at "+m.MountPath+" "+how)
	}
	want := []string{
		"/etc/kubernetes/secrets-store-csi-providers at /etc/kubernetes/secrets-store-csi-providers ro",
		"/var/lib/kubelet/plugins/csi-secrets-store/ at /csi rw",
		"/var/lib/kubelet/plugins_registry/ at /registration rw",
		"/var/lib/kubelet/pods at /var/lib/kubelet/pods rw Bidirectional",
		"/var/run/secrets-store-csi-providers at /var/run/secrets-store-csi-providers ro",
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("folders are\n%s, want\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := len(set.Spec.Template.Spec.Volumes); n != len(want) {
		t.Errorf("there are %d volumes, %d are mounted", n, len(want))
	}
}

// Secrets are neither listed nor watched. To delete one is a right that only clusters ask for in which owners are changed by nobody else; without
// roles or syncSecret.enabled there is none at all.
func TestDriverRightsOnSecrets(t *testing.T) {
	t.Parallel()
	claim(t, "10.3/chart-rights-are-narrow")
	role := func(chart, text string, apis ...string) []rbacv1.PolicyRule {
		set := installation{Values: values(t, text), APIVersions: apis}.objects(t, chart)
		return find[*rbacv1.ClusterRole](t, set, "ClusterRole/secretprovidersyncing-role").Rules
	}
	const openShift = "security.openshift.io/v1"
	for _, tc := range []struct {
		chart, text string
		apis, want  []string
	}{
		{driverChart, syncing, nil, []string{"create", "get", "patch"}},
		{driverChart, syncing, []string{"route.openshift.io/v1"}, []string{"create", "get", "patch"}},
		{driverChart, syncing, []string{openShift}, []string{"create", "get", "patch", "delete"}},
		{providerChart, "secrets-store-csi-driver: {" + syncing + "}", nil, []string{"create", "get", "patch"}},
		{providerChart, "secrets-store-csi-driver: {" + syncing + "}", []string{openShift}, []string{"create", "get", "patch", "delete"}},
	} {
		rules := role(tc.chart, tc.text, tc.apis...)
		if len(rules) != 2 || !slices.Equal(rules[0].Resources, []string{"secrets"}) || !slices.Equal(rules[0].Verbs, tc.want) {
			t.Errorf("%s on %v: rules %v, want %v on Secrets", tc.chart, tc.apis, rules, tc.want)
		}
	}
	for _, text := range []string{"", "{rbac: {install: false}, " + syncing + "}"} {
		set := installation{Values: values(t, text), APIVersions: []string{openShift}}.objects(t, driverChart)
		for name, object := range set {
			if role, ok := object.(*rbacv1.ClusterRole); ok && slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "secrets") }) {
				t.Errorf("with %q, %s grants a right on Secrets", text, name)
			}
		}
	}
}

// Status objects have owners too, and those of a pod of the same name are taken over.
func TestDriverRightsOnStatusObjects(t *testing.T) {
	t.Parallel()
	claim(t, "10.3/chart-rights-are-narrow")
	for _, tc := range []struct{ apis, want []string }{
		{nil, []string{"create", "get", "patch"}},
		{[]string{"security.openshift.io/v1"}, []string{"create", "get", "patch", "delete"}},
	} {
		set := installation{Values: values(t, ""), APIVersions: tc.apis}.objects(t, driverChart)
		for _, rule := range find[*rbacv1.ClusterRole](t, set, "ClusterRole/secretproviderclasses-role").Rules {
			if slices.Contains(rule.Resources, "secretproviderclasspodstatuses") && !slices.Equal(rule.Verbs, tc.want) {
				t.Errorf("on %v: %v on status objects, want %v", tc.apis, rule.Verbs, tc.want)
			}
		}
	}
}

// No right on Secrets without syncSecret.enabled, none to make tokens or to write pods ever, and no wildcards.
func TestDriverRightsAreNarrow(t *testing.T) {
	t.Parallel()
	claim(t, "10.3/chart-rights-are-narrow")
	for text, secrets := range map[string]bool{"": false, "{" + annotations + ", rbac: {tokenKeys: true}}": false, syncing: true} {
		granted := false
		for name, object := range objects(t, driverChart, text) {
			role, ok := object.(*rbacv1.ClusterRole)
			if !ok {
				continue
			}
			for _, rule := range role.Rules {
				granted = granted || slices.Contains(rule.Resources, "secrets")
				for _, word := range slices.Concat(rule.Resources, rule.Verbs, rule.APIGroups) {
					if word == "*" || word == "serviceaccounts/token" || word == "impersonate" || word == "escalate" || word == "bind" {
						t.Errorf("%q: %s grants %s", text, name, word)
					}
				}
				if slices.Contains(rule.Resources, "pods") && !slices.Equal(rule.Verbs, []string{"get"}) {
					t.Errorf("%q: %s grants %v on pods", text, name, rule.Verbs)
				}
			}
		}
		if granted != secrets {
			t.Errorf("%q: a right on Secrets is granted: %v", text, granted)
		}
	}
}
