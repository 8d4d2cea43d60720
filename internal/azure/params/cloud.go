package params

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// A Cloud is where a class's identity and vault live.
type Cloud struct {
	// Name is the cloud's canonical name, such as AzurePublicCloud.
	Name string
	// AuthorityHost is the address of Entra ID, without a final slash.
	AuthorityHost string
	// VaultSuffix is what follows the vault's name in its host name.
	VaultSuffix string
	// Resource is the audience of the vault's access tokens, without a final slash.
	Resource string
}

const (
	publicCloud = "AzurePublicCloud"
	customCloud = "AzureStackCloud"
)

// clouds is a function since package variables could be changed.
func clouds(name string) (Cloud, bool) {
	for _, row := range []struct{ names, authority, suffix string }{
		{"AzurePublicCloud AzureCloud", "login.microsoftonline.com", "vault.azure.net"},
		{"AzureUSGovernmentCloud AzureUSGovernment", "login.microsoftonline.us", "vault.usgovcloudapi.net"},
		{"AzureChinaCloud", "login.chinacloudapi.cn", "vault.azure.cn"},
		{"AzureGermanCloud", "login.microsoftonline.de", "vault.microsoftazure.de"},
	} {
		names := strings.Fields(row.names)
		for _, n := range names {
			if strings.EqualFold(n, name) {
				return Cloud{Name: names[0], AuthorityHost: "https://" + row.authority, VaultSuffix: row.suffix,
					Resource: "https://" + row.suffix}, true
			}
		}
	}
	return Cloud{}, false
}

// CheckCloudName says whether a class without a cloud of its own could use name, for flags that set the default.
func CheckCloudName(name string) error {
	if _, ok := clouds(name); ok || name == "" || strings.EqualFold(name, customCloud) {
		return nil
	}
	return fmt.Errorf("%s (%s)", noSuchCloud(name), cloudRemedy)
}

const cloudRemedy = "use AzurePublicCloud, AzureUSGovernmentCloud, AzureChinaCloud, AzureGermanCloud or AzureStackCloud, or leave it out"

func noSuchCloud(name string) string {
	return "cloudName " + show(name) + ` is not valid, error: autorest/azure: There is no cloud environment matching the name "` +
		strings.ToUpper(show(name)) + `"`
}

func (p *parser) cloud(opt Options) Cloud {
	name := p.get(keyCloud)
	if name == "" {
		name = opt.DefaultCloud
	}
	if name == "" {
		name = publicCloud
	}
	if strings.EqualFold(name, customCloud) {
		return p.customCloud(name, opt)
	}
	c, ok := clouds(name)
	if !ok {
		p.problem(field(keyCloud), cloudRemedy, "%s", noSuchCloud(name))
	}
	return c
}

// customCloud reads the file that the class names, or the operator's. Nothing is remembered: what one class names never
// applies to another.
func (p *parser) customCloud(name string, opt Options) Cloud {
	const remedy = "ask the operator of the provider for the names of the cloud files that classes may use"
	file := p.get(keyCloudFile)
	refuse := func(why string) Cloud {
		p.problem(field(keyCloudFile), remedy, "cloudName %s is not valid, error: %s", show(name), why)
		return Cloud{}
	}
	if opt.CloudFile == nil {
		return refuse("this provider has no files that describe custom clouds")
	}
	if len(file) > maxPath || !printable(file) {
		return refuse("the file's name is not a name")
	}
	content, err := opt.CloudFile(file)
	if err != nil {
		return refuse(err.Error())
	}
	c, err := parseCloudFile(content, opt.AuthorityHost)
	if err != nil {
		return refuse("reading " + show(file) + ": " + err.Error())
	}
	return c
}

// parseCloudFile reads the members that the vault and its tokens need. Causes are described and never quoted: what a class
// author made the provider read need not be a cloud file.
func parseCloudFile(content []byte, authority string) (Cloud, error) {
	var file struct {
		Name      string `json:"name"`
		Authority string `json:"activeDirectoryEndpoint"`
		Endpoint  string `json:"keyVaultEndpoint"`
		Suffix    string `json:"keyVaultDNSSuffix"`
		Resources struct {
			KeyVault string `json:"keyVault"`
		} `json:"resourceIdentifiers"`
	}
	if len(content) > 1<<20 {
		return Cloud{}, errors.New("it is larger than 1 MiB")
	}
	if err := json.Unmarshal(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")), &file); err != nil {
		return Cloud{}, errors.New("it is not a JSON object that describes a cloud")
	}
	suffix := strings.ToLower(strings.Trim(strings.TrimSpace(file.Suffix), "."))
	if suffix == "" || len(suffix) > 200 || !onlyLettersDigitsAnd(suffix, ".-") {
		return Cloud{}, errors.New("keyVaultDNSSuffix is not a host name")
	}
	if file.Authority == "" {
		file.Authority = authority
	}
	host, ok := httpsAddress(file.Authority)
	if !ok {
		return Cloud{}, errors.New("activeDirectoryEndpoint is not an https address")
	}
	resource := "https://" + suffix
	for _, candidate := range []string{file.Endpoint, file.Resources.KeyVault} {
		if candidate == "" || candidate == "N/A" {
			continue
		}
		if resource, ok = httpsAddress(candidate); !ok {
			return Cloud{}, errors.New("keyVaultEndpoint and resourceIdentifiers.keyVault must be https addresses")
		}
	}
	return Cloud{Name: customCloud, AuthorityHost: host, VaultSuffix: suffix, Resource: resource}, nil
}

func httpsAddress(s string) (string, bool) {
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", false
	}
	return strings.TrimRight(u.String(), "/"), true
}
