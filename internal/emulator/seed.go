package emulator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A Seed says what an emulator holds: it is a YAML file for people and a value for tests.
type Seed struct {
	// Clouds are added to the public ones.
	Clouds []Cloud `yaml:"clouds,omitempty"`
	// Issuers are clusters, whose service account tokens federated credentials can name.
	Issuers []IssuerSeed `yaml:"issuers,omitempty"`
	Tenants []Tenant     `yaml:"tenants,omitempty"`
	Vaults  []Vault      `yaml:"vaults,omitempty"`

	dir string // where relative file names start
}

// An IssuerSeed is an emulated cluster, or a real one of which the public keys are given.
type IssuerSeed struct {
	URL string `yaml:"url"`
	// Algorithm is ES256 (default) or RS256.
	Algorithm string `yaml:"algorithm,omitempty"`
	// JWKS is the key set of a real cluster, as its API server gives it at /openid/v1/jwks, instead of a key that is made up; JWKSFile names a file with it.
	JWKS     string `yaml:"jwks,omitempty"`
	JWKSFile string `yaml:"jwksFile,omitempty"`
}

// A Tenant is a directory of Entra ID.
type Tenant struct {
	ID   string `yaml:"id"`
	Apps []App  `yaml:"apps,omitempty"`
}

// An App is an application or a managed identity.
type App struct {
	ClientID      string      `yaml:"clientID"`
	ObjectID      string      `yaml:"objectID,omitempty"` // made up if empty
	ClientSecret  string      `yaml:"clientSecret,omitempty"`
	ClientSecrets []string    `yaml:"clientSecrets,omitempty"` // more of them, as while one is being replaced
	Federated     []Federated `yaml:"federated,omitempty"`
}

func (a *App) secrets() []string {
	all := slices.Clone(a.ClientSecrets)
	if a.ClientSecret != "" {
		all = append(all, a.ClientSecret)
	}
	return all
}

// Federated is a federated identity credential: whose tokens stand for the application.
type Federated struct {
	Issuer  string `yaml:"issuer"`
	Subject string `yaml:"subject"`
	// Audience is api://AzureADTokenExchange if empty.
	Audience string `yaml:"audience,omitempty"`
}

func (f Federated) audience() string {
	if f.Audience == "" {
		return "api://AzureADTokenExchange"
	}
	return f.Audience
}

// A Vault of a seed.
type Vault struct {
	Name string `yaml:"name"`
	// Cloud is a cloud's name, AzurePublicCloud if empty; Tenant may be left out when the seed has just one.
	Cloud  string `yaml:"cloud,omitempty"`
	Tenant string `yaml:"tenant,omitempty"`
	Region string `yaml:"region,omitempty"` // uksouth if empty
	// Permissions is "rbac" (default) or "policies"; only texts of refusals differ.
	Permissions string `yaml:"permissions,omitempty"`
	// RecoverableDays is 7 to 90, 7 if zero.
	RecoverableDays int `yaml:"recoverableDays,omitempty"`
	// Access lists who may do what. Left out, every application of the tenant may do everything; an empty list lets nobody in.
	Access       []Access      `yaml:"access"`
	Secrets      []Secret      `yaml:"secrets,omitempty"`
	Keys         []Key         `yaml:"keys,omitempty"`
	Certificates []Certificate `yaml:"certificates,omitempty"`
}

// Access lets an application do something.
type Access struct {
	// App is a client id, or * for all of the tenant.
	App string `yaml:"app" json:"app"`
	// Allow are rights such as secrets/get, keys/*, or *. Verbs: get, list, set, delete, recover, purge.
	Allow []string `yaml:"allow" json:"allow"`
	// Objects limits it to objects of these names. Lists then need an entry of their own without names.
	Objects []string `yaml:"objects,omitempty" json:"objects,omitempty"`
}

// A Secret with one version, or with those of Versions (then Value and ValueFile are empty).
type Secret struct {
	Name          string `yaml:"name"`
	SecretVersion `yaml:",inline"`
	Versions      []SecretVersion `yaml:"versions,omitempty"` // oldest first
}

// A SecretVersion is stored byte for byte.
type SecretVersion struct {
	ID          string            `yaml:"id,omitempty"` // 32 hex digits; made up if empty
	Value       string            `yaml:"value,omitempty"`
	ValueFile   string            `yaml:"valueFile,omitempty"`
	ContentType string            `yaml:"contentType,omitempty"`
	Tags        map[string]string `yaml:"tags,omitempty"`
	Enabled     *bool             `yaml:"enabled,omitempty"`
	Created     time.Time         `yaml:"created,omitempty"` // now if zero
	NotBefore   time.Time         `yaml:"notBefore,omitempty"`
	Expires     time.Time         `yaml:"expires,omitempty"`
	// Managed and KID make it look like the secret of a certificate. KID is a URL, or a path such as keys/name/version.
	Managed bool   `yaml:"managed,omitempty"`
	KID     string `yaml:"kid,omitempty"`
}

// A Key object. Key material is made up.
type Key struct {
	Name    string            `yaml:"name"`
	Type    string            `yaml:"type,omitempty"`  // RSA (default), EC, RSA-HSM, EC-HSM, oct-HSM
	Curve   string            `yaml:"curve,omitempty"` // P-256 (default), P-384, P-521, P-256K
	Size    int               `yaml:"size,omitempty"`  // bits; 2048 (default), 3072, 4096
	Tags    map[string]string `yaml:"tags,omitempty"`
	Enabled *bool             `yaml:"enabled,omitempty"`
	// PublicKey is PEM text of a public key to show instead of a new one.
	PublicKey string `yaml:"publicKey,omitempty"`
}

// A Certificate with its secret and key: self-signed by Subject, or imported from File or Value.
type Certificate struct {
	Name     string   `yaml:"name"`
	Subject  string   `yaml:"subject,omitempty"` // CN=name if empty
	DNSNames []string `yaml:"dnsNames,omitempty"`
	KeyType  string   `yaml:"keyType,omitempty"` // RSA (default), EC, RSA-HSM, EC-HSM
	Curve    string   `yaml:"curve,omitempty"`
	KeySize  int      `yaml:"keySize,omitempty"`
	// ContentType of the secret: application/x-pkcs12 (default) or application/x-pem-file. For an import it is seen from the file.
	ContentType string `yaml:"contentType,omitempty"`
	Exportable  *bool  `yaml:"exportable,omitempty"`
	// Parents is how many certificates above the leaf are made, the last one a root.
	Parents int    `yaml:"parents,omitempty"`
	Months  int    `yaml:"months,omitempty"` // 12 if zero
	File    string `yaml:"file,omitempty"`
	Value   string `yaml:"value,omitempty"`
	// Password of the PFX to import. Without one the secret's value is the file, byte for byte (base64 of it for a PFX).
	Password string            `yaml:"password,omitempty"`
	Tags     map[string]string `yaml:"tags,omitempty"`
	Enabled  *bool             `yaml:"enabled,omitempty"`
}

// maxSeed bounds a seed file, in bytes.
const maxSeed = 16 << 20

// ReadSeed reads a seed file. File names in it are relative to its folder. Members that a seed does not have are errors.
func ReadSeed(path string) (Seed, error) {
	f, err := os.Open(path)
	if err != nil {
		return Seed{}, fmt.Errorf("opening the seed: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSeed+1))
	if err != nil {
		return Seed{}, fmt.Errorf("reading the seed: %w", err)
	}
	if len(b) > maxSeed {
		return Seed{}, fmt.Errorf("reading the seed %s: it is larger than %d bytes", path, maxSeed)
	}
	seed, err := ParseSeed(b)
	if err != nil {
		return Seed{}, fmt.Errorf("reading the seed %s: %w", path, err)
	}
	seed.dir = filepath.Dir(path)
	return seed, nil
}

// ParseSeed reads a seed from YAML.
func ParseSeed(b []byte) (Seed, error) {
	var seed Seed
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&seed); err != nil && !errors.Is(err, io.EOF) {
		return Seed{}, err
	}
	return seed, nil
}

// content is inline text or a file's.
func (s *Seed) content(inline, file string) (string, error) {
	if file == "" {
		return inline, nil
	}
	if inline != "" {
		return "", errors.New("the text and a file are both given: leave one out")
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(s.dir, file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%w: the name is relative to the seed's folder", err)
	}
	return string(b), nil
}

// problems collects what is wrong with a seed, each with its place.
type problems []error

func (p *problems) add(place, format string, args ...any) {
	*p = append(*p, fmt.Errorf(place+": "+format, args...))
}

func checkRights(p *problems, place string, a Access) {
	if a.App == "" {
		p.add(place+".app", "is missing: give a client id, or * for every application of the tenant")
	}
	for i, right := range a.Allow {
		k, verb, ok := strings.Cut(right, "/")
		known := k == string(secrets) || k == string(keys) || k == string(certificates)
		if right == "*" || ok && known && (verb == "*" || slices.Contains(verbs(), verb)) {
			continue
		}
		p.add(fmt.Sprintf("%s.allow[%d]", place, i), "%q is not a right: use <kind>/<verb> such as secrets/get (kinds: secrets, keys, certificates; verbs: %s, *), or *", right, strings.Join(verbs(), ", "))
	}
}
