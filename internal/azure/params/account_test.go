package params_test

import (
	"strings"
	"testing"

	"keymount/internal/azure/params"
)

const accountKey = "keymount.dev/service-account-annotations"

// Who a class is when the pod's service account says something too.
func TestServiceAccountAnnotations(t *testing.T) {
	both := `{"azure.workload.identity/client-id":" client-a ","azure.workload.identity/tenant-id":"tenant-a"}`
	for _, tc := range []struct {
		name           string
		change         func(m map[string]string)
		opt            params.Options
		mode           params.Mode
		client, tenant string
	}{
		{"the class names both", func(m map[string]string) { m["clientID"], m["tenantID"] = "c", "t" }, params.Options{}, params.WorkloadIdentity, "c", "t"},
		{"the class names neither", func(m map[string]string) {}, params.Options{}, params.WorkloadIdentity, "client-a", "tenant-a"},
		{"the class names the tenant by its old key", func(m map[string]string) { m["tenantId"] = "t" }, params.Options{}, params.WorkloadIdentity, "client-a", "t"},
		{"a service principal stays one", func(m map[string]string) {}, params.Options{ServicePrincipal: true}, params.ServicePrincipal, "", "tenant-a"},
		{"a managed identity stays one", func(m map[string]string) { m["useVMManagedIdentity"] = "true" }, params.Options{}, params.ManagedIdentity, "", "tenant-a"},
		{"a pod identity stays one", func(m map[string]string) { m["usePodIdentity"] = "true" }, params.Options{}, params.PodIdentity, "", "tenant-a"},
		{"an identity binding", func(m map[string]string) { m["useAzureTokenProxy"] = "true" }, params.Options{}, params.IdentityBinding, "client-a", "tenant-a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := without("tenantID")
			m[accountKey] = both
			tc.change(m)
			spec, err := params.Parse(m, tc.opt)
			if err != nil {
				t.Fatal(err)
			}
			if spec.Mode != tc.mode || spec.ClientID != tc.client || spec.TenantID != tc.tenant {
				t.Errorf("got %v %q %q, want %v %q %q", spec.Mode, spec.ClientID, spec.TenantID, tc.mode, tc.client, tc.tenant)
			}
			if m["clientID"] == "client-a" {
				t.Error("the caller's map was changed")
			}
		})
	}
}

// What the annotations say is checked as if the class said it.
func TestHostileServiceAccountAnnotations(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":           "secret-looking",
		"not strings":        `{"azure.workload.identity/client-id":1}`,
		"a tenant with path": `{"azure.workload.identity/tenant-id":"a/../b"}`,
		"a client with line": `{"azure.workload.identity/client-id":"a\nb"}`,
	} {
		t.Run(name, func(t *testing.T) {
			m := without("tenantID")
			m[accountKey] = text
			_, err := params.Parse(m, params.Options{})
			if err == nil || strings.Contains(err.Error(), "secret-looking") {
				t.Errorf("got %v", err)
			}
		})
	}
}
