package daemon

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"

	"keymount/internal/azure"
	"keymount/internal/classes"
	"keymount/internal/events"
	"keymount/internal/kubelet"
	"keymount/internal/metrics"
	"keymount/internal/node"
	"keymount/internal/podstatus"
	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
	"keymount/internal/publish"
	"keymount/internal/secretsync"
	"keymount/internal/serviceaccount"
	"keymount/internal/token"
	"keymount/internal/volume"
)

// A daemon is the parts that need no turn on the node.
type daemon struct {
	cfg       Config
	readiness *kubelet.Readiness
	metrics   *metrics.Metrics
	folders   *plugin.Folders
	builtin   map[string]provider.Provider
	classes   *classes.Classes
	tokens    *token.Prover
	accounts  *serviceaccount.Reader
	status    *podstatus.Recorder
	events    *events.Recorder
	secrets   *secretsync.Syncer
	outcomes  *outcomeLog
	adviser   *adviser
	// state is that of the node once it is this driver's turn; metrics ask for it from the start.
	state atomic.Pointer[state]
}

// newDaemon makes the parts. Nothing of them connects to anybody yet.
func newDaemon(cfg Config) (*daemon, error) {
	conditions := []kubelet.Condition{kubelet.LockHeld, kubelet.Serving}
	if cfg.Registration != nil {
		conditions = append(conditions, kubelet.Registered)
	}
	d := &daemon{cfg: cfg, readiness: kubelet.NewReadiness(conditions...), builtin: map[string]provider.Provider{},
		outcomes: newOutcomeLog(cfg.Log)}
	if err := d.makeProviders(); err != nil {
		return nil, err
	}
	d.metrics = metrics.New(metrics.Config{
		Version: cfg.Build.Version, Commit: cfg.Build.Commit, Log: cfg.Log,
		Volumes: d.volumeSizes, Meters: d.meters(), Health: d.folders.Health,
		EventsDropped: func() uint64 { return d.events.Lost() },
	})
	if err := d.makeClients(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *daemon) makeProviders() error {
	p := d.cfg.Providers
	d.folders = plugin.NewFolders(plugin.FoldersConfig{
		Folders: p.Folders, MaxMessageBytes: p.MaxAnswer, HealthEvery: p.HealthCheckInterval, Log: d.cfg.Log,
	})
	if p.Azure == nil {
		return nil
	}
	built, err := azure.New(azure.Config{
		CloudName: p.Azure.CloudName, CloudFile: p.Azure.CloudFile, AuthorityHost: p.Azure.AuthorityHost,
		ConstructPEMChain: p.Azure.ConstructPEMChain, WriteCertAndKeyInSeparateFiles: p.Azure.WriteCertAndKeyInSeparateFiles,
		ShareFor: p.Azure.ShareReadsFor, UserAgent: d.userAgent(), Logger: d.cfg.Log,
	})
	if err != nil {
		return fmt.Errorf("making the built-in provider %s (see --cloud-name): %w", azure.Name, err)
	}
	d.builtin[azure.Name] = built
	return nil
}

func (d *daemon) makeClients() error {
	cfg := d.cfg
	api, err := apiConfig(cfg.Kubeconfig, d.userAgent(), d.metrics.APIRequests)
	if err != nil {
		return err
	}
	if d.classes, err = classes.New(classes.Config{API: api, Log: cfg.Log}); err != nil {
		return err
	}
	if d.tokens, err = token.New(token.Config{API: api, DriverName: cfg.DriverName, Log: cfg.Log}); err != nil {
		return err
	}
	if d.accounts, err = serviceaccount.New(serviceaccount.Config{API: api, Log: cfg.Log}); err != nil {
		return err
	}
	if d.status, err = podstatus.New(podstatus.Config{API: api, NodeID: cfg.NodeName, Log: cfg.Log}); err != nil {
		return err
	}
	d.adviser = &adviser{api: api, driverName: cfg.DriverName, rotation: cfg.Rotation.Enabled, log: cfg.Log}
	if d.events, err = events.New(events.Config{API: api, NodeID: cfg.NodeName, Log: cfg.Log}); err != nil {
		return err
	}
	d.secrets, err = secretsync.New(secretsync.Config{
		API: api, Classes: d.classes, Content: d.tmpfs(), NodeID: cfg.NodeName, Log: cfg.Log,
		Observer: secretObservers{d.metrics, d.events, d.status, d.outcomes},
	})
	return err
}

func (d *daemon) userAgent() string {
	return fmt.Sprintf("keymount-driver/%s (%s/%s)", d.cfg.Build.Version, runtime.GOOS, runtime.GOARCH)
}

func (d *daemon) meters() map[string]provider.Meter {
	meters := map[string]provider.Meter{}
	for name, p := range d.builtin {
		if m, ok := p.(provider.Meter); ok {
			meters[name] = m
		}
	}
	return meters
}

// provider finds a provider by the name that classes use: one of this process, else one behind a socket.
func (d *daemon) provider(name string) (provider.Provider, error) {
	p, ok := d.builtin[name]
	if !ok {
		var err error
		if p, err = d.folders.Provider(name); err != nil {
			return nil, withBuiltin(name, err)
		}
	}
	return d.metrics.Instrument(name, provider.Audiences(d.cfg.Providers.Audiences).Restrict(name, p)), nil
}

// withBuiltin adds to the remedy that this program could have the provider in itself, where it could, and that names have a case.
func withBuiltin(name string, err error) error {
	var e *provider.Error
	if !strings.EqualFold(name, azure.Name) || !errors.As(err, &e) {
		return err
	}
	hinted := *e
	if name != azure.Name {
		hinted.Remedy = "write " + azure.Name + " in spec.provider of the class: names of providers are case-sensitive"
		return &hinted
	}
	hinted.Remedy = strings.TrimPrefix(e.Remedy+"; or have it in the driver, with --builtin-providers="+name+", the chart's builtinProviders", "; ")
	return &hinted
}

func (d *daemon) tmpfs() volume.Tmpfs {
	return volume.Tmpfs{Size: max(volume.DefaultSize, 4*int64(d.cfg.Providers.MaxAnswer)), NoExec: d.cfg.MountNoexec}
}

// nodeConfig joins what serves the CSI calls.
func (d *daemon) nodeConfig(st *state) node.Config {
	cfg := node.Config{
		DriverName: d.cfg.DriverName, Version: d.cfg.Build.Version, NodeID: d.cfg.NodeName,
		Classes: d.classes, Tokens: d.tokens,
		Accounts: d.accounts, AccountAnnotations: d.cfg.ServiceAccountAnnotations,
		Publisher: publish.New(publish.Config{
			Provider: d.provider,
			Store:    newBudget(d.tmpfs(), os.DirFS(cgroupFolder), st.targets),
			Registry: st.registry,
			Status:   d.status,
			Secrets:  d.secrets,
			Observer: observers{d.metrics, d.events, d.status, d.secrets, d.outcomes},
		}),
	}
	if d.cfg.Rotation.Enabled {
		// 0 is rotation at every republish, as with upstream, and not none.
		cfg.Rotation = node.Rotation{Interval: max(d.cfg.Rotation.Interval, 1), MinInterval: d.cfg.Rotation.MinInterval}
	}
	return cfg
}

// volumeSizes is what metrics show of the volumes that are mounted.
func (d *daemon) volumeSizes() []metrics.VolumeSize {
	st := d.state.Load()
	if st == nil {
		return nil
	}
	var sizes []metrics.VolumeSize
	for _, rec := range st.registry.All() {
		if status, err := d.tmpfs().Inspect(rec.Target); err == nil && status.State == volume.Mounted {
			sizes = append(sizes, metrics.VolumeSize{Provider: rec.Provider, Bytes: status.Bytes})
		}
	}
	return sizes
}

var _ publish.Reserver = (*budget)(nil)
