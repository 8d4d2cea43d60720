package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"keymount/internal/provider"
)

// A FoldersConfig says where providers are.
type FoldersConfig struct {
	// Folders hold one socket per provider, NAME.sock, and are searched in this order. Empty ones are left out.
	Folders []string
	// MaxMessageBytes bounds an answer; 0 means 4 MiB.
	MaxMessageBytes int
	// ConnectWithin is how long a call waits for somebody to listen, so that a provider may restart; 0 means 5 s. A call's
	// own deadline counts too.
	ConnectWithin time.Duration
	// IdleAfter is how long a connection that nobody uses is kept; 0 means 10 min.
	IdleAfter time.Duration
	// HealthEvery is how often connected providers are asked whether they are well; 0 switches that off.
	HealthEvery time.Duration
	// Log is told when a provider's health changes; nil means nobody is.
	Log *slog.Logger
	// Now is the clock by which connections are idle; nil means time.Now.
	Now func() time.Time
}

const (
	defaultIdleAfter = 10 * time.Minute
	// handshakeWithin bounds one attempt to speak with a listener, after which the folders are searched again: one that is
	// hung must not keep the next folder's from being found.
	handshakeWithin = time.Second
	// searchEvery is how often the folders are searched while nobody listens.
	searchEvery = 50 * time.Millisecond
)

// nameRule is upstream's.
var nameRule = regexp.MustCompile(`^[a-zA-Z0-9_-]{0,30}$`)

// Folders finds providers by name in folders of sockets, at each call anew: a provider may restart, or move to another
// folder. That a path exists means nothing: a provider is where somebody listens, so what a former provider left in one
// folder never hides the one that lives in another.
//
// There is at most one connection per path, shared by all calls. No lock is held while anybody is waited for.
type Folders struct {
	cfg FoldersConfig

	mu      sync.Mutex
	closed  bool
	places  map[string]*place // by path; only paths where somebody listened
	healthy map[string]bool   // by name, as of the last check; names without a place are forgotten
}

// A place is a socket that is, or was lately, in use. Its fields but client and name are guarded by Folders.mu.
type place struct {
	name   string
	client *Client
	users  int
	used   time.Time // last, but for health checks
}

// NewFolders returns Folders; it looks at nothing yet.
func NewFolders(cfg FoldersConfig) *Folders {
	cfg.Folders = slices.DeleteFunc(slices.Clone(cfg.Folders), func(f string) bool { return f == "" })
	if cfg.MaxMessageBytes <= 0 {
		cfg.MaxMessageBytes = defaultMessageBytes
	}
	if cfg.ConnectWithin <= 0 {
		cfg.ConnectWithin = defaultConnectWithin
	}
	if cfg.IdleAfter <= 0 {
		cfg.IdleAfter = defaultIdleAfter
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Folders{cfg: cfg, places: map[string]*place{}, healthy: map[string]bool{}}
}

// Provider returns the provider that goes by the name, if there is any trace of one. It does not connect, and never waits.
func (f *Folders) Provider(name string) (provider.Provider, error) {
	if !nameRule.MatchString(name) {
		return nil, &provider.Error{Kind: provider.Invalid, Cause: &lookupError{},
			Message: fmt.Sprintf("invalid provider: provider %q", clean(name, maxObjectBytes)),
			Remedy:  "a provider's name is at most 30 letters, digits, '_' and '-': correct spec.provider of the class"}
	}
	n := &named{folders: f, name: name}
	if !f.Known(name) {
		return nil, n.notFound()
	}
	return n, nil
}

// Known says whether there is any trace of a provider of that name: something at one of its paths, or a connection to it
// not long ago. It bounds what a name can be, since only who may write to the folders can make one known.
func (f *Folders) Known(name string) bool {
	n := &named{folders: f, name: name}
	return nameRule.MatchString(name) && (n.recent() || n.exists())
}

// Close ends every connection with the calls on them; calls after it fail.
func (f *Folders) Close() {
	f.mu.Lock()
	f.closed = true
	places := f.places
	f.places = nil
	f.mu.Unlock()
	for _, p := range places {
		p.client.Close()
	}
}

// take returns the place of a path, to be put back.
func (f *Folders) take(name, path string) (*place, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errClosed
	}
	p := f.places[path]
	if p == nil {
		p = &place{name: name, used: f.cfg.Now(), client: NewClient(ClientConfig{
			Socket: path, MaxMessageBytes: f.cfg.MaxMessageBytes, ConnectWithin: f.cfg.ConnectWithin})}
		f.places[path] = p
	}
	p.users++
	return p, nil
}

func (f *Folders) put(p *place, counts bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.users--
	if counts {
		p.used = f.cfg.Now()
	}
}

// peek returns the place of a path if there is one.
func (f *Folders) peek(path string) *place {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.places[path]
}

// closeIdle ends the connections that nobody has used for long.
func (f *Folders) closeIdle() {
	now := f.cfg.Now()
	var idle []*place
	f.mu.Lock()
	left := map[string]bool{}
	for path, p := range f.places {
		if p.users == 0 && now.Sub(p.used) >= f.cfg.IdleAfter {
			idle = append(idle, p)
			delete(f.places, path)
			continue
		}
		left[p.name] = true
	}
	for name := range f.healthy {
		if !left[name] {
			delete(f.healthy, name)
		}
	}
	f.mu.Unlock()
	for _, p := range idle {
		p.client.Close()
	}
}

// A named is a provider.Provider that is looked for at each call.
type named struct {
	folders *Folders
	name    string
	asks    bool // for health only, which does not count as use
}

var _ provider.TargetWriter = (*named)(nil)

// MayWriteTarget implements provider.TargetWriter: the protocol lets every provider write into the target.
func (n *named) MayWriteTarget() bool { return true }

// Fetch implements provider.Provider, see Client.Fetch.
func (n *named) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	return askMount(ctx, n.call, req)
}

// call makes a call where somebody listens, and once more if the provider goes away during it, which may then be elsewhere.
func (n *named) call(ctx context.Context, do doing) error {
	for retried := false; ; retried = true {
		p, l, drops, err := n.connect(ctx)
		if err != nil {
			return err
		}
		lost, err := p.client.use(ctx, l, drops, do)
		n.folders.put(p, !n.asks)
		if !lost || retried || ctx.Err() != nil {
			return err
		}
	}
}

// connect searches the folders until somebody answers in one of them. The place is to be put back, the link to be released.
func (n *named) connect(ctx context.Context) (p *place, l *link, drops int64, err error) {
	within, cancel := context.WithTimeout(ctx, n.folders.cfg.ConnectWithin)
	defer cancel()
	for {
		reasons := make([]string, 0, len(n.folders.cfg.Folders))
		for _, path := range n.paths() {
			p, l, drops, err := n.try(within, path)
			switch {
			case err == nil:
				return p, l, drops, nil
			case errors.Is(err, errClosed):
				return nil, nil, 0, &provider.Error{Kind: provider.Internal, Message: "the clients of all providers are closed"}
			}
			reasons = append(reasons, fmt.Sprintf("%s: %v", path, err))
		}
		select {
		case <-time.After(searchEvery):
		case <-within.Done():
			return nil, nil, 0, n.unreachable(ctx, reasons)
		}
	}
}

// try connects to one path if somebody listens there.
func (n *named) try(ctx context.Context, path string) (*place, *link, int64, error) {
	if p := n.folders.peek(path); p == nil || !p.client.links.connected() {
		if err := probe(ctx, path); err != nil {
			return nil, nil, 0, err
		}
	}
	p, err := n.folders.take(n.name, path)
	if err != nil {
		return nil, nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeWithin)
	defer cancel()
	drops := p.client.links.drops.Load()
	l, err := p.client.links.acquire(ctx)
	if err != nil {
		n.folders.put(p, false)
		return nil, nil, 0, err
	}
	return p, l, drops, nil
}

func (n *named) paths() []string {
	paths := make([]string, len(n.folders.cfg.Folders))
	for i, folder := range n.folders.cfg.Folders {
		paths[i] = filepath.Join(folder, n.name+".sock")
	}
	return paths
}

// recent says that the provider was here lately: if its socket is gone it may be restarting.
func (n *named) recent() bool {
	return slices.ContainsFunc(n.paths(), func(path string) bool { return n.folders.peek(path) != nil })
}

// exists says that there is anything at all at one of the paths.
func (n *named) exists() bool {
	return slices.ContainsFunc(n.paths(), func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	})
}

func (n *named) notFound() error {
	return &provider.Error{
		Kind: provider.NotFound, Cause: &lookupError{},
		Message: fmt.Sprintf("provider not found: provider %q: there is no %s.sock in %s", n.name, n.name,
			strings.Join(n.folders.cfg.Folders, " or ")),
		Remedy: "check spec.provider of the class, and that the provider's DaemonSet has a pod on this node " +
			"that serves its socket in one of these folders (--provider-volume, --additional-provider-volume-paths)",
	}
}

// unreachable says why nobody was found.
func (n *named) unreachable(ctx context.Context, reasons []string) error {
	switch {
	case ctx.Err() != nil:
		return ended(ctx, "waiting for a connection", strings.Join(n.paths(), " or "))
	case !n.exists():
		return n.notFound()
	}
	return &provider.Error{
		Kind: provider.Unavailable, Cause: &lookupError{},
		Message: fmt.Sprintf("nobody answers for provider %q: %s", n.name, strings.Join(reasons, "; ")),
		Remedy:  "check that the provider's pod runs on this node and serves one of these sockets",
	}
}

// A lookupError is the cause of failures to find or reach a provider.
type lookupError struct{}

func (*lookupError) Error() string { return "looking up a provider" }

// ErrorType is the value of upstream's metric label error_type.
func (*lookupError) ErrorType() string { return "FailedToLookupProviderGRPCClient" }
