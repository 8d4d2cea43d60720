package cli

import (
	"fmt"
	"strings"
	"time"

	"keymount/internal/azure"
	"keymount/internal/azure/identity"
	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
)

// newProvider makes the provider that a class names, and a function that ends it. A socket serves whatever the name is.
func newProvider(name string, o *mountOptions, env Env) (p provider.Provider, end func(), err error) {
	switch {
	case o.socket != "":
		// A person waits: a provider that does not listen now is not worth more than a moment.
		path := strings.TrimPrefix(o.socket, "unix://") // as providers' own flags have it
		client := plugin.NewClient(plugin.ClientConfig{Socket: path, ConnectWithin: time.Second})
		return client, func() { client.Close() }, nil
	case name == azure.Name:
		p, err = newAzure(o, env)
		return p, func() {}, err
	case name == "":
		return nil, nil, &usageError{"the class names no provider", "set spec.provider; built in: " + azure.Name}
	}
	return nil, nil, &usageError{fmt.Sprintf("the class names provider %q, which is not built in; built in: %s", name, azure.Name),
		"to use another provider, give its socket with --provider-socket PATH"}
}

func newAzure(o *mountOptions, env Env) (provider.Provider, error) {
	transport := identity.NewTransport()
	cfg := azure.Config{
		Transport:         transport,
		CloudFile:         env.Getenv("AZURE_ENVIRONMENT_FILEPATH"),
		AuthorityHost:     env.Getenv("AZURE_AUTHORITY_HOST"),
		ConstructPEMChain: true,
		ShareFor:          0, // who asks for a refresh wants to see what is there now
		UserAgent:         "keymount/" + env.Version,
	}
	if o.identity.mode == identityDefault {
		cfg.Identity = identity.NewDefaultChain(identity.Config{Transport: transport})
	}
	return azure.New(cfg)
}
