package daemon

import (
	"log/slog"
	"time"

	"keymount/internal/azure"
	"keymount/internal/socket"
)

// Config is what the operator decides, checked and typed. A field that is not set switches its part off, unless it says
// otherwise. DefaultConfig has what applies where nothing is decided.
type Config struct {
	Build Build

	// Endpoint is where the CSI services are served. It must be set.
	Endpoint socket.Endpoint
	// DriverName is the name of the CSI driver. It must be set.
	DriverName string
	// NodeName is the name of this node's object, which CSI calls the node id. Without it no pod can be told to be on
	// this node, and kubelet does not register the driver.
	NodeName string
	// StateDir holds the lock and what is remembered of volumes. "" means that nothing is locked or remembered.
	StateDir string
	// Kubeconfig is the file that says where the API server is. "" means $KUBECONFIG, else what a pod is given.
	Kubeconfig string

	Providers ProvidersConfig
	Rotation  RotationConfig

	// MountNoexec mounts volumes so that nothing in them can be run.
	MountNoexec bool
	// ServiceAccountAnnotations are the annotations of a pod's service account that providers are told.
	ServiceAccountAnnotations []string

	// Registration makes the driver known to kubelet; nil leaves that to a registrar.
	Registration *RegistrationConfig
	// HealthAddr, MetricsAddr and PprofAddr are host:port of the three HTTP servers.
	HealthAddr, MetricsAddr, PprofAddr string

	// Log gets every line; it must be set.
	Log *slog.Logger
}

// Build says which program this is.
type Build struct {
	Version string
	Commit  string
	Date    string
}

// ProvidersConfig says which providers there are and how they are talked to.
type ProvidersConfig struct {
	// Folders are where sockets of providers are looked for, in this order.
	Folders []string
	// MaxAnswer is the size of the largest answer that is taken, in bytes. It must be set.
	MaxAnswer int
	// HealthCheckInterval is the time between two health checks; 0 switches them off.
	HealthCheckInterval time.Duration
	// Audiences restricts which tokens a provider is given, by its name: those for these audiences only. The audience ""
	// is the API server's own. A provider that is not there is given all tokens.
	Audiences map[string][]string
	// Azure is the provider for Azure Key Vault in this process; it goes before a socket of that name.
	Azure *AzureConfig
}

// AzureConfig is what the operator decides for the built-in Azure provider. The fields mean what those of azure.Config do.
type AzureConfig struct {
	CloudName                      string
	CloudFile                      string
	AuthorityHost                  string
	ConstructPEMChain              bool
	WriteCertAndKeyInSeparateFiles bool
	ShareReadsFor                  time.Duration
}

// RotationConfig says when the content of a volume is fetched again.
type RotationConfig struct {
	Enabled bool
	// Interval is the time from a successful refresh of a volume to the next.
	Interval time.Duration
	// MinInterval is the shortest interval that a class may ask for.
	MinInterval time.Duration
}

// RegistrationConfig says where kubelet looks for drivers, and what it finds.
type RegistrationConfig struct {
	// Dir is kubelet's folder for registration sockets, as this process sees it.
	Dir string
	// KubeletPath is the CSI socket as kubelet sees it.
	KubeletPath string
}

// DefaultConfig returns upstream's defaults, and those of the parts that upstream does not have. Parts that are off unless
// somebody asks for them are off.
func DefaultConfig() Config {
	endpoint, err := socket.ParseEndpoint("unix://tmp/csi.sock")
	if err != nil {
		panic(err) // a constant
	}
	return Config{
		Endpoint:   endpoint,
		DriverName: "secrets-store.csi.k8s.io",
		Providers: ProvidersConfig{
			Folders:   []string{"/etc/kubernetes/secrets-store-csi-providers", "/var/run/secrets-store-csi-providers"},
			MaxAnswer: 4 << 20,
		},
		Rotation:    RotationConfig{Interval: 2 * time.Minute, MinInterval: 30 * time.Second},
		MetricsAddr: ":8095",
	}
}

// DefaultAzureConfig returns what applies to the built-in Azure provider where nothing else is decided.
func DefaultAzureConfig() AzureConfig {
	return AzureConfig{ConstructPEMChain: true, ShareReadsFor: azure.DefaultShareFor}
}
