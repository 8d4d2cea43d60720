// Package classes looks up the SecretProviderClasses that volumes of this node use, and no others.
//
// A class is read from the API server when it is first needed; from then on, for as long as a volume uses it, a watch by name
// keeps it, or one watch per namespace where many classes of that namespace are in use. What is kept grows with what is
// mounted here, never with the cluster, and of each class only what Keymount needs is kept.
//
// It imports the provider contract, the API types and client-go; it knows neither volumes nor kubelet. Every method may be
// called from any number of goroutines.
package classes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"keymount/internal/provider"
)

const (
	// maxByName is how many classes of one namespace are watched by name; with more in use, the namespace is watched, and
	// by name again only when half as many are left, so that one pod that comes and goes does not move every watch.
	maxByName = 50
	// maxVolumes bounds the bookkeeping; kubelet's own limit is some hundreds of pods. A volume beyond it is served all the
	// same, by a read at each look-up.
	maxVolumes = 10_000
	// maxKept bounds what is kept of all classes, in bytes, some thousand times what one has. A class can have 1.5 MiB, and one
	// pod can use any number; those for which there is no room are read at each look-up.
	maxKept = 16 << 20

	readTimeout = 10 * time.Second
	patience    = 2 * time.Second
)

// Config says how to reach the API server.
type Config struct {
	// API is the API server. Every watch takes a token of its rate limit once.
	API *rest.Config
	Log *slog.Logger
	// FirstRetry and LastRetry bound the wait before a broken watch is opened again; 0 means 0.8 s and 30 s.
	FirstRetry, LastRetry time.Duration
	// ReadTimeout bounds a read, with the tries that client-go makes of it; 0 means 10 s.
	ReadTimeout time.Duration
	// Patience is how long a look-up waits for the API server while a last known state is held; 0 means 2 s.
	Patience time.Duration
	// MaxKept bounds what is kept of all classes, in bytes; 0 means 16 MiB.
	MaxKept int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Classes looks up classes.
type Classes struct {
	cfg      Config
	client   dynamic.Interface
	versions *versions
	reads    singleflight.Group
	// changed is told that the classes in use are not those that are watched; its one place is enough.
	changed chan struct{}

	mu      sync.Mutex
	volumes map[string]key               // the class of each volume
	used    map[string]map[string]*entry // the classes in use, by namespace and name
	uses    int                          // how often a class came into use
	feeds   map[key]*feed                // the watches that run; a whole namespace has the name ""
	failing map[*feed]bool               // those that do not work at present
	full    bool                         // that maxVolumes was reached has been said
	kept    int                          // bytes of all classes in use
	heavy   bool                         // that MaxKept was reached has been said
}

// An entry is a class in use and what was last heard of it. Its fields are guarded by Classes.mu.
type entry struct {
	volumes int
	born    int // Classes.uses when it came into use
	// known says that class and err are a state that was told; exactly one of them is set then.
	known bool
	class *Class
	err   *provider.Error
	size  int // of class
	wish  wish
	// told counts what the watch has told, so that a read that was overtaken can be recognised.
	told int
}

// New returns an empty bookkeeping. It sends nothing.
func New(cfg Config) (*Classes, error) {
	api := rest.CopyConfig(cfg.API)
	api.Timeout = 0 // it would end the watches too
	client, err := dynamic.NewForConfig(api)
	if err != nil {
		return nil, fmt.Errorf("making a client for SecretProviderClasses: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.ReadTimeout <= 0 {
		cfg.ReadTimeout = readTimeout
	}
	if cfg.MaxKept <= 0 {
		cfg.MaxKept = maxKept
	}
	if cfg.Patience <= 0 {
		cfg.Patience = patience
	}
	return &Classes{
		cfg: cfg, client: client, versions: &versions{now: cfg.Now, log: cfg.Log}, changed: make(chan struct{}, 1),
		volumes: map[string]key{}, used: map[string]map[string]*entry{}, feeds: map[key]*feed{}, failing: map[*feed]bool{},
	}, nil
}

// Use says that a volume uses a class, from now until Release. Saying so again, or naming another class, is fine. Before Run
// it only books, so that a restart that knows many volumes opens each watch once.
func (c *Classes) Use(volumeID, namespace, name string) {
	k := key{namespace, name}
	if k.valid() != nil {
		return // no such class can exist; Get says so
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.volumes[volumeID]; ok {
		if old == k {
			return
		}
		c.release(volumeID, old)
	}
	if len(c.volumes) >= maxVolumes {
		if !c.full {
			c.full = true
			c.cfg.Log.Warn("too many volumes to keep their classes; those of further volumes are read at each use", "limit", maxVolumes)
		}
		return
	}
	c.volumes[volumeID] = k
	if c.used[namespace] == nil {
		c.used[namespace] = map[string]*entry{}
	}
	e := c.used[namespace][name]
	if e == nil {
		c.uses++
		e = &entry{born: c.uses}
		c.used[namespace][name] = e
		c.wake()
	}
	e.volumes++
}

// Release says that a volume is gone. For a volume that is not known it does nothing.
func (c *Classes) Release(volumeID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok := c.volumes[volumeID]; ok {
		c.release(volumeID, k)
	}
}

// release forgets a volume and, with the last one, its class. c.mu is held.
func (c *Classes) release(volumeID string, k key) {
	delete(c.volumes, volumeID)
	c.full = false
	e := c.used[k.namespace][k.name]
	if e.volumes--; e.volumes > 0 {
		return
	}
	c.kept -= e.size
	c.heavy = false
	delete(c.used[k.namespace], k.name)
	if len(c.used[k.namespace]) == 0 {
		delete(c.used, k.namespace)
	}
	c.wake()
}

// wake tells Run that the watches are to be looked at.
func (c *Classes) wake() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// Get returns a class.
//
// For a class in use whose watch works it asks nobody. Otherwise it reads the class from the API server, once for all who ask
// meanwhile. When the API server does not answer, or asks to be left alone, and a state of a class in use is held, that state
// is served: it is at most as old as the outage, since the watch kept it up to date until then.
//
// The error is an *provider.Error.
func (c *Classes) Get(ctx context.Context, namespace, name string) (*Class, error) {
	k := key{namespace, name}
	if err := k.valid(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	e := c.used[namespace][name]
	held := e != nil && e.known
	if held && c.live(k) {
		defer c.mu.Unlock()
		return e.result(c.cfg.Now())
	}
	c.mu.Unlock()

	class, err := c.wait(ctx, k, held)
	if err == nil {
		return class, nil
	}
	if kind := provider.KindOf(err); held && (kind == provider.Unavailable || kind == provider.Throttled) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if e.known { // it can have grown too large to keep meanwhile
			return e.result(c.cfg.Now())
		}
	}
	return nil, err
}

// result returns what was last told. Classes.mu is held.
func (e *entry) result(now time.Time) (*Class, error) {
	if e.err != nil {
		return nil, e.err
	}
	if e.wish.settle(now) {
		class := *e.class // others hold the one before
		e.wish.put(&class)
		e.class = &class
	}
	return e.class, nil
}

// tell notes a state; exactly one of class and err is given. A class for which there is no room is not kept. c.mu is held.
func (c *Classes) tell(e *entry, class *Class, err *provider.Error) {
	if class != nil {
		e.wish.hear(class)
	}
	size := class.size()
	if c.kept-e.size+size > c.cfg.MaxKept {
		if !c.heavy {
			c.heavy = true
			c.cfg.Log.Warn("the SecretProviderClasses in use are too large to keep; further ones are read at each use",
				"limit", c.cfg.MaxKept, "class", class.Namespace+"/"+class.Name)
		}
		c.kept -= e.size
		e.known, e.class, e.err, e.size = false, nil, nil, 0
		return
	}
	c.kept += size - e.size
	e.known, e.class, e.err, e.size = true, class, err, size
}

// wait reads a class, or joins those who do so already. The read goes on when its caller leaves, since others wait for it.
func (c *Classes) wait(ctx context.Context, k key, held bool) (*Class, error) {
	done := c.reads.DoChan(k.String(), func() (any, error) { return c.read(k) })
	var impatient <-chan time.Time
	if held {
		timer := time.NewTimer(c.cfg.Patience)
		defer timer.Stop()
		impatient = timer.C
	}
	select {
	case r := <-done:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*Class), nil
	case <-impatient:
		return nil, k.failure(context.DeadlineExceeded)
	case <-ctx.Done():
		e := k.failure(ctx.Err())
		e.Message = k.message("waiting for the API server: " + ctx.Err().Error())
		return nil, e
	}
}

// read reads a class from the API server, and keeps it where nobody has told anything newer.
func (c *Classes) read(k key) (*Class, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.ReadTimeout)
	defer cancel()
	c.mu.Lock()
	e, told := c.used[k.namespace][k.name], 0
	if e != nil {
		told = e.told
	}
	c.mu.Unlock()

	class, failure := c.fetch(ctx, k)

	// An event that came meanwhile may be newer; if it is older, the watch is about to tell what we have read. Without a watch
	// that works or worked nothing is kept, since it would be served in an outage however old it is.
	c.mu.Lock()
	defer c.mu.Unlock()
	final := failure == nil || failure.Kind == provider.NotFound || failure.Kind == provider.Invalid
	current := e != nil && c.used[k.namespace][k.name] == e && e.told == told
	if current && final && (e.known || c.live(k)) {
		c.tell(e, class, failure)
	}
	if failure != nil {
		return nil, failure
	}
	return class, nil
}

func (c *Classes) fetch(ctx context.Context, k key) (*Class, *provider.Error) {
	var object *unstructured.Unstructured
	err := c.versions.try(func(gvr schema.GroupVersionResource) (err error) {
		object, err = c.client.Resource(gvr).Namespace(k.namespace).Get(ctx, k.name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return nil, k.failure(err)
	}
	return c.parse(k, object)
}

// parse reads an object that the API server has just told.
func (c *Classes) parse(k key, object *unstructured.Unstructured) (*Class, *provider.Error) {
	if object.GetNamespace() != k.namespace || object.GetName() != k.name {
		return nil, &provider.Error{Kind: provider.Internal, Message: k.message("the API server answered with another object"),
			Cause: unreadable{errors.New("another object")}}
	}
	class, err := parse(object)
	if err != nil {
		return nil, &provider.Error{Kind: provider.Invalid, Message: k.message(err.Error()), Cause: unreadable{err},
			Remedy: "correct the SecretProviderClass"}
	}
	class.RefreshSeen = c.cfg.Now()
	return class, nil
}

// valid refuses names that no object can have, which have no place in the path of a request.
func (k key) valid() error {
	problems := validation.ValidateNamespaceName(k.namespace, false)
	problems = append(problems, validation.NameIsDNSSubdomain(k.name, false)...)
	if len(problems) == 0 {
		return nil
	}
	shown := key{quotable(k.namespace), quotable(k.name)}
	return &provider.Error{Kind: provider.Invalid, Message: shown.message("no valid name: " + problems[0]), Cause: unreadable{errors.New(problems[0])},
		Remedy: "correct the attribute secretProviderClass of the volume"}
}

// quotable shortens what an author wrote to what an error may repeat.
func quotable(text string) string {
	if len(text) > maxQuoted {
		text = text[:maxQuoted] + "..."
	}
	return provider.OneLine(text, maxText)
}
