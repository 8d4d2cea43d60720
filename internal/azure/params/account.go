package params

import (
	"encoding/json"
	"maps"
	"strings"

	"keymount/internal/provider"
)

// keyAccount carries annotations of the pod's service account. The driver sets it, nobody else can.
const keyAccount = provider.AnnotationPrefix + "service-account-annotations"

// The annotations of a service account that say who it is in Entra ID, as Azure Workload Identity's webhook knows them.
const (
	annotationClient = "azure.workload.identity/client-id"
	annotationTenant = "azure.workload.identity/tenant-id"
)

// account takes client and tenant from the service account where the class names none. A class that names an identity mode
// of another kind, or whose volume brings a service principal's secret, does not become workload identity by it.
func (p *parser) account(opt Options) {
	text := p.values[keyAccount]
	if text == "" {
		return
	}
	var annotations map[string]string
	if err := json.Unmarshal([]byte(text), &annotations); err != nil {
		p.problem("parameters."+keyAccount, "let the driver set it", "not a JSON object of strings")
		return
	}
	p.values = maps.Clone(p.values)
	if client := strings.TrimSpace(annotations[annotationClient]); client != "" && p.get(keyClient) == "" && !opt.ServicePrincipal &&
		!p.isOn(keyPodIdentity) && !p.isOn(keyManagedIdentity) {
		p.values[keyClient] = client
	}
	if tenant := strings.TrimSpace(annotations[annotationTenant]); tenant != "" && p.get(keyTenant) == "" && p.get(keyTenantOld) == "" {
		p.values[keyTenant] = tenant
	}
}
