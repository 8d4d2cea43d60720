// Package params turns the parameters of an Azure SecretProviderClass into a typed Spec, or into every reason why they
// cannot be one, each by its field path.
//
// It owns what a class may say and how: the names of parameters and object fields, defaults, limits, file names and the
// table of clouds. What it accepts is what the Azure provider of the Secrets Store CSI Driver accepts, and each refusal
// contains that provider's text, so that people who search for it find it. It reads no file, no environment and no
// network, imports nothing of this module but the provider's error kinds, keeps no state, and may be used from any number
// of goroutines.
package params

import (
	"strconv"
	"strings"

	"keymount/internal/provider"
)

// Names of the parameters, matched exactly.
const (
	keyPodIdentity     = "usePodIdentity"
	keyManagedIdentity = "useVMManagedIdentity"
	keyTokenProxy      = "useAzureTokenProxy"
	keyVault           = "keyvaultName"
	keyTenant          = "tenantID"
	keyTenantOld       = "tenantId"
	keyCloudFile       = "cloudEnvFileName"
	keyCloud           = "cloudName"
	keyClient          = "clientID"
	keyUserAssigned    = "userAssignedIdentityID"
	keyObjects         = "objects"
)

// Mode is the way a class asks to be identified.
type Mode int

const (
	// ServicePrincipal takes clientid and clientsecret from the volume's nodePublishSecretRef.
	ServicePrincipal Mode = iota
	// WorkloadIdentity exchanges the pod's token for audience api://AzureADTokenExchange.
	WorkloadIdentity
	// IdentityBinding exchanges the pod's token for audience api://AKSIdentityBinding at the cluster's proxy.
	IdentityBinding
	// ManagedIdentity asks the virtual machine's metadata service.
	ManagedIdentity
	// PodIdentity asks the node-managed identity daemon.
	PodIdentity
)

// String returns the mode as messages name it.
func (m Mode) String() string {
	names := [...]string{"service principal", "workload identity", "identity binding", "VM managed identity", "pod identity"}
	if m < 0 || int(m) >= len(names) {
		return "mode " + strconv.Itoa(int(m))
	}
	return names[m]
}

// A Spec is what a class asks for.
type Spec struct {
	Mode Mode
	// TenantID is set in every mode.
	TenantID string
	// ClientID is the application of workload identity and identity binding; a class may set it in other modes, where it
	// means nothing.
	ClientID string
	// UserAssignedID is the client id of a user-assigned managed identity, "" for the system-assigned one.
	UserAssignedID string
	Cloud          Cloud
	// Vault is the vault's name, in lower case as in its host name.
	Vault   string
	Objects []Object
	// Warnings are about what was accepted but is likely not meant; one sentence each.
	Warnings []string
}

// VaultURL returns the vault's address, without a final slash.
func (s *Spec) VaultURL() string { return "https://" + s.Vault + "." + s.Cloud.VaultSuffix }

// Options are what the operator decides, not the class.
type Options struct {
	// DefaultCloud is the cloud of a class that names none; "" means AzurePublicCloud.
	DefaultCloud string
	// ServicePrincipal says that the volume brings a nodePublishSecretRef, which then is the identity of a class that names
	// none, whatever the pod's service account says.
	ServicePrincipal bool
	// AuthorityHost is the Entra ID address for custom clouds whose file has none; "" means that the file must have one.
	AuthorityHost string
	// CloudFile returns the description of a custom cloud for the value of cloudEnvFileName, which is "" where the class
	// has none. It decides which files a class may name. nil refuses custom clouds.
	CloudFile func(name string) ([]byte, error)
}

// Parse returns the Spec that parameters describe. The error is a provider.Errors of kind Invalid with every problem that
// was found, each beginning with the path of its field, such as parameters.objects.array[3].filePermission. Keys that it
// does not know are ignored, as the provider that it replaces does, but for a warning where one looks like a slip.
func Parse(parameters map[string]string, opt Options) (*Spec, error) {
	p := &parser{values: parameters}
	p.account(opt)
	spec := &Spec{
		Mode:           p.mode(),
		Vault:          p.vault(),
		TenantID:       p.tenant(),
		ClientID:       p.identifier(keyClient),
		UserAssignedID: p.identifier(keyUserAssigned),
	}
	if spec.Mode == ServicePrincipal && spec.ClientID != "" {
		spec.Mode = WorkloadIdentity
	}
	if spec.Mode == IdentityBinding && p.get(keyClient) == "" {
		p.problem(field(keyClient), "set it to the client id of the managed identity that the binding names",
			"clientID is required for identity binding")
	}
	spec.Cloud = p.cloud(opt)
	spec.Objects = p.objects()
	p.conflicts(spec.Objects)
	p.unknownKeys()
	if err := p.problems(); err != nil {
		return nil, err
	}
	spec.Warnings = p.warnings
	return spec, nil
}

// A parser collects what is wrong and what is odd while the parts of a Spec are read.
type parser struct {
	values   map[string]string
	found    provider.Errors
	more     int
	warnings []string
}

func (p *parser) get(key string) string { return strings.TrimSpace(p.values[key]) }

// mode returns what the three flags say; workload identity is told from a service principal by the client id, in Parse.
func (p *parser) mode() Mode {
	mode, on := ServicePrincipal, 0
	for _, flag := range []struct {
		key  string
		mode Mode
	}{{keyPodIdentity, PodIdentity}, {keyManagedIdentity, ManagedIdentity}, {keyTokenProxy, IdentityBinding}} {
		text := p.get(flag.key)
		if text == "" {
			continue
		}
		set, err := strconv.ParseBool(text)
		if err != nil {
			p.problem(field(flag.key), `write "true" or "false"`,
				"failed to parse %s flag, error: strconv.ParseBool: parsing %q: invalid syntax", flag.key, show(text))
		}
		if set {
			mode = flag.mode
			on++
		}
	}
	if on > 1 {
		p.problem("parameters", "leave one of them true and remove the others",
			"only one identity mode can be enabled at a time: usePodIdentity, useVMManagedIdentity, or useAzureTokenProxy")
	}
	return mode
}

// isOn says whether a flag is set; what is neither is reported by mode.
func (p *parser) isOn(key string) bool {
	set, err := strconv.ParseBool(p.get(key))
	return err == nil && set
}

func (p *parser) vault() string {
	name := p.get(keyVault)
	const remedy = "give the vault's name as the portal shows it, not its address"
	switch {
	case name == "":
		p.problem(field(keyVault), p.orSlip(keyVault, "name the vault to read from"), "keyvaultName is not provided")
	case len(name) < 3 || len(name) > 24:
		p.problem(field(keyVault), remedy, "failed to get vault: Invalid vault name: %q, must be between 3 and 24 chars", show(name))
	case !onlyLettersDigitsAnd(name, "-"):
		p.problem(field(keyVault), remedy, "failed to get vault: Invalid vault name: %q, must match [-a-zA-Z0-9]{3,24}", show(name))
	}
	return strings.ToLower(name)
}

func (p *parser) tenant() string {
	key, tenant := keyTenant, p.get(keyTenant)
	if tenant == "" && p.get(keyTenantOld) != "" {
		key, tenant = keyTenantOld, p.get(keyTenantOld)
	}
	if tenant == "" {
		p.problem(field(keyTenant), p.orSlip(keyTenant, "set it to the directory (tenant) id of the vault's subscription"), "tenantId is not provided")
		return ""
	}
	if len(tenant) > maxIdentifier || !onlyLettersDigitsAnd(tenant, ".-") {
		p.problem(field(key), "the portal shows the id under Microsoft Entra ID, Overview",
			"failed to get keyvault client: invalid tenantID. You can locate your tenantID by looking at the directory's properties; "+
				"it consists of letters, digits, '.' and '-', and %q does not", show(tenant))
	}
	return tenant
}

// identifier returns a value that upstream passes on as it is. It becomes part of requests and of identity keys, so what
// no client id can be is refused here.
func (p *parser) identifier(key string) string {
	v := p.get(key)
	if len(v) > maxIdentifier || !printable(v) {
		p.problem(field(key), "write the client id of the identity, a GUID", "%q is not a client id", show(v))
		return ""
	}
	return v
}

func onlyLettersDigitsAnd(s, more string) bool {
	for _, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		digit := c >= '0' && c <= '9'
		if !letter && !digit && strings.IndexByte(more, c) < 0 {
			return false
		}
	}
	return true
}
