package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"keymount/internal/provider"
)

// Identity modes of the command line.
const (
	identityManifest = "manifest"
	identitySecret   = "client-secret"
	identityToken    = "token-file"
	identityDefault  = "default"
)

// azureAudience is the audience of the tokens that Entra ID exchanges for its own.
const azureAudience = "api://AzureADTokenExchange"

// maxCredential bounds a file with a credential, in bytes.
const maxCredential = 64 << 10

// identityOptions are who asks. Credentials come from files and the environment only: a command line is visible to every
// user of the machine.
type identityOptions struct {
	mode       string
	clientID   string
	secretFile string
	tokenFile  string
	audience   string
	secretEnv  provider.Sensitive
}

func (o *identityOptions) flags(fs *pflag.FlagSet) {
	fs.StringVar(&o.mode, "identity", identityManifest, "`who` asks: manifest (as the class says), client-secret, token-file, or default (as after \"az login\")")
	fs.StringVar(&o.clientID, "client-id", "", "client `id` of the application or identity (env AZURE_CLIENT_ID)")
	fs.StringVar(&o.secretFile, "client-secret-file", "", "`file` with the client secret, or env AZURE_CLIENT_SECRET for the secret itself; read anew at every refresh")
	fs.StringVar(&o.tokenFile, "token-file", "", "`file` with a service account token (env AZURE_FEDERATED_TOKEN_FILE); read anew at every refresh")
	fs.StringVar(&o.audience, "token-audience", azureAudience, "audience under which the provider gets the token of --token-file")
}

// complete fills in what the environment says and lists what is missing. The environment's credentials are meant for Azure:
// a provider behind a socket gets only what the flags name.
func (o *identityOptions) complete(getenv func(string) string, socket bool) error {
	if socket && o.mode != identityManifest {
		return &usageError{"--identity " + o.mode + " works with the built-in provider only, not with --provider-socket", "leave --identity out"}
	}
	if !socket {
		if o.clientID == "" {
			o.clientID = getenv("AZURE_CLIENT_ID")
		}
		if o.secretFile == "" {
			o.secretEnv = provider.Sensitive(getenv("AZURE_CLIENT_SECRET"))
		}
		if o.tokenFile == "" {
			o.tokenFile = getenv("AZURE_FEDERATED_TOKEN_FILE")
		}
	}
	if socket && o.secretFile != "" && o.clientID == "" {
		return &usageError{"--client-secret-file without --client-id", "give --client-id too: of the environment nothing is handed to a provider behind a socket"}
	}
	hasSecret := o.secretFile != "" || o.secretEnv != ""
	switch o.mode {
	case identityManifest, identityDefault:
	case identitySecret:
		if o.clientID == "" || !hasSecret {
			return &usageError{"--identity client-secret needs a client id and a client secret",
				"give --client-id (or AZURE_CLIENT_ID) and --client-secret-file (or AZURE_CLIENT_SECRET)"}
		}
	case identityToken:
		if o.clientID == "" || o.tokenFile == "" {
			return &usageError{"--identity token-file needs a client id and a token", "give --client-id (or AZURE_CLIENT_ID) and --token-file (or AZURE_FEDERATED_TOKEN_FILE)"}
		}
	default:
		return &usageError{fmt.Sprintf("--identity %q is not known", o.mode), "use manifest, client-secret, token-file or default"}
	}
	return nil
}

// apply puts the identity into a request: its credentials, and, where the command line overrides the class, the parameters
// that choose the mode.
func (o *identityOptions) apply(req *provider.Request) error {
	switch o.mode {
	case identitySecret:
		dropModes(req.Parameters)
	case identityToken:
		dropModes(req.Parameters)
		req.Parameters["clientID"] = o.clientID
	case identityDefault:
		dropModes(req.Parameters)
		return nil
	}
	secret := o.secretEnv
	if o.secretFile != "" {
		var err error
		if secret, err = readCredential("client secret", o.secretFile); err != nil {
			return err
		}
	}
	if secret != "" && o.mode != identityToken {
		req.Secrets = map[string]provider.Sensitive{"clientid": provider.Sensitive(o.clientID), "clientsecret": secret}
	}
	if o.tokenFile != "" && o.mode != identitySecret {
		token, err := readCredential("token", o.tokenFile)
		if err != nil {
			return err
		}
		req.Tokens = map[string]provider.Token{o.audience: {Value: token}}
	}
	return nil
}

// dropModes leaves a class without a mode of its own.
func dropModes(parameters map[string]string) {
	for _, key := range []string{"usePodIdentity", "useVMManagedIdentity", "useAzureTokenProxy", "clientID", "userAssignedIdentityID"} {
		delete(parameters, key)
	}
}

// readCredential reads a credential from a file that may end with a line end. Errors never quote the file.
func readCredential(what, path string) (provider.Sensitive, error) {
	text, err := readBounded(path)
	if err != nil {
		return "", &provider.Error{Kind: provider.Invalid, Message: fmt.Sprintf("reading the %s: %v", what, err),
			Remedy: "give the path of a file that holds the " + what + " and nothing else"}
	}
	return provider.Sensitive(text), nil
}

func readBounded(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCredential+1))
	switch text := strings.TrimRight(string(data), "\r\n"); {
	case err != nil:
		return "", err
	case len(data) > maxCredential:
		return "", fmt.Errorf("%s has more than %d bytes", path, maxCredential)
	case text == "":
		return "", fmt.Errorf("%s is empty", path)
	default:
		return text, nil
	}
}
