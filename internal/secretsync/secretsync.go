// Package secretsync mirrors what volumes hold to the Kubernetes Secrets that their classes ask for.
//
// There are two operations. An update follows a fetch: the Secret is read and, where its content is other than what was fetched, patched.
// To ensure is to create what is absent, from what the volume holds on disk, and to add owners that are missing; it reads metadata only
// and overwrites nothing. It happens every few minutes, for all volumes of a class together.
//
// Several nodes write the same Secret. Each write notes which class, in which generation, it was made from, and as of when the content was
// read; it is conditional on what was read of the Secret, so that what is older never overwrites what is newer. The note also lists which
// keys, labels and annotations are ours: everybody else's stay, and so do their owners. A Secret that is not marked as managed, or that
// another class makes, is never touched.
//
// A Secret is read before it is created, although a class's first pod would need no read: of all pods but the first, on every node, the
// Secret is there, and a create that is refused costs the API server what one that succeeds does. Owners are the pod's own, so that they
// must be asked for: one read of metadata per volume. A bare pod owns its Secrets itself, where upstream names the pod's status object,
// which goes when the pod goes; that saves knowing the object, and a Secret whose status could not be written has an owner all the same.
//
// No Secret is watched, and no content is kept: that a volume's content is as it was shows by a digest under a key of this process. The
// package implements publish.SecretSyncer, and publish.Observer to learn which volumes are gone. It imports publish, classes, the provider
// contract and client-go's dynamic and metadata clients. Every method may be called from any number of goroutines.
package secretsync

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"keymount/internal/classes"
	"keymount/internal/provider"
	"keymount/internal/publish"
)

const (
	// within bounds how long a publish waits for its Secrets.
	within = 5 * time.Second
	// fresh is how long what was seen of a Secret serves other volumes that start: as long as a read of the source does.
	fresh = 5 * time.Second
	// ensureEvery is how often Secrets are looked after, and soon how long after an owner was added to one that was there: its other owners
	// may have gone a moment before, and then it goes too, whatever was added.
	ensureEvery = 5 * time.Minute
	soon        = 15 * time.Second
	firstRetry  = time.Second
	lastRetry   = 5 * time.Minute
	// atOnce is how many Secrets are synced at the same time, on the whole node. One takes some ten times what it holds, which may be 1 MiB,
	// and a class can name many.
	atOnce = 4
	// maxSecrets bounds the Secrets of one class, and maxVolumes the bookkeeping, both far above what is in use.
	maxSecrets = 256
	maxVolumes = 10_000
)

// Classes knows the classes of the cluster.
type Classes interface {
	Get(ctx context.Context, namespace, name string) (*classes.Class, error)
}

// Content is what volumes hold.
type Content interface {
	// Read returns the contents of those of the files that the volume at target holds, all of one generation, at most limit bytes together.
	Read(target string, paths []string, limit int) (map[string]provider.Contents, error)
}

// Config says how to reach the API server, and who knows what. The first group is required.
type Config struct {
	API     *rest.Config
	Classes Classes
	Content Content
	// Observer is told of every try.
	Observer publish.SecretObserver

	// NodeID is noted in the Secrets that this node wrote, for people.
	NodeID string
	Log    *slog.Logger
	// EnsureEvery is how often Secrets are looked after, FirstRetry and LastRetry bound the wait before a try that failed is repeated; 0 means
	// 5 min, 1 s and 5 min.
	EnsureEvery, FirstRetry, LastRetry time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Syncer syncs the Secrets of one node.
type Syncer struct {
	cfg      Config
	objects  dynamic.NamespaceableResourceInterface // Secrets, whole
	metadata metadata.Interface
	key      [32]byte // of digests
	places   chan struct{}
	// due is told that the time of the next work has changed; its one place is enough.
	due chan struct{}

	mu      sync.Mutex
	volumes map[string]*member       // by volume id
	groups  map[publish.Class]*group // of volumes of one class
	full    bool                     // that maxVolumes was reached has been said
}

var (
	secretsResource = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	podsResource    = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
)

// New returns a Syncer. It sends nothing.
func New(cfg Config) (*Syncer, error) {
	objects, err := dynamic.NewForConfig(cfg.API)
	if err != nil {
		return nil, fmt.Errorf("making a client for Secrets: %w", err)
	}
	meta, err := metadata.NewForConfig(cfg.API)
	if err != nil {
		return nil, fmt.Errorf("making a client for the metadata of Secrets: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	for _, d := range []struct {
		value *time.Duration
		usual time.Duration
	}{{&cfg.EnsureEvery, ensureEvery}, {&cfg.FirstRetry, firstRetry}, {&cfg.LastRetry, lastRetry}} {
		if *d.value <= 0 {
			*d.value = d.usual
		}
	}
	s := &Syncer{cfg: cfg, objects: objects.Resource(secretsResource), metadata: meta, due: make(chan struct{}, 1), places: make(chan struct{}, atOnce),
		volumes: map[string]*member{}, groups: map[publish.Class]*group{}}
	rand.Read(s.key[:]) // never fails (crypto/rand)
	return s, nil
}
