// Package apiwatch keeps one watch on the API server going and tells, at every moment, whether what it told is up to date.
//
// It adds to client-go's Reflector what that does not say: that a watch is open, that it broke, and why. It keeps no object
// itself: a Sink takes what it needs of each, so that nobody holds whole objects with their managedFields. It imports
// client-go's Reflector and nothing of the module. Run is called once per watch, from any goroutine.
package apiwatch

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

const (
	firstRetry = 800 * time.Millisecond
	lastRetry  = 30 * time.Second
	// calm is how long a watch must have held for the next failure to count as the first one.
	calm = 2 * time.Minute
)

// A Sink is told what is on the API server. Its methods are called one at a time, and the objects are its own.
type Sink interface {
	// Replace tells the whole state: what is not in objects does not exist.
	Replace(objects []*unstructured.Unstructured)
	// Set tells one object that was made or changed.
	Set(object *unstructured.Unstructured)
	// Remove tells one object that is gone.
	Remove(object *unstructured.Unstructured)
	// Live tells whether what was told is kept up to date from now on. It is not while the watch is being opened, is broken,
	// or has yet to tell the whole state.
	Live(live bool)
	// Failed tells why listing or watching did not work; it will be tried again.
	Failed(err error)
}

// A Source lists and watches. dynamic.ResourceInterface is one.
type Source interface {
	List(ctx context.Context, opts metav1.ListOptions) (*unstructured.UnstructuredList, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

// Config says what to watch.
type Config struct {
	Source Source
	Sink   Sink
	// FieldSelector narrows what is watched, "" for everything that Source has. Rights for one name cover a watch on
	// metadata.name=NAME.
	FieldSelector string
	// FirstRetry and LastRetry bound the wait after a failure, which doubles, with jitter; 0 means 0.8 s and 30 s.
	FirstRetry, LastRetry time.Duration
}

// Run watches until ctx is done.
func Run(ctx context.Context, cfg Config) {
	if cfg.FirstRetry <= 0 {
		cfg.FirstRetry = firstRetry
	}
	if cfg.LastRetry <= 0 {
		cfg.LastRetry = lastRetry
	}
	o := &observer{cfg: cfg}
	// The Reflector waits by itself where the connection is refused and where it is told to slow down.
	backoff := &wait.Backoff{Duration: cfg.FirstRetry, Cap: cfg.LastRetry, Steps: 10, Factor: 2, Jitter: 1}
	// It also logs by itself, at every try. The sink hears of the same, and decides what is worth a line.
	silent := klog.Logger{}
	ctx = klog.NewContext(ctx, silent)
	reflector := cache.NewReflectorWithOptions(o, &unstructured.Unstructured{}, o, cache.ReflectorOptions{
		Name: "keymount", Backoff: backoff, Logger: &silent})
	delay := cfg.FirstRetry
	for ctx.Err() == nil {
		began := time.Now()
		err := reflector.ListAndWatchWithContext(ctx)
		o.closed()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			cfg.Sink.Failed(err)
		}
		if time.Since(began) > calm {
			delay = cfg.FirstRetry
		}
		pause := time.NewTimer(delay + rand.N(delay))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
		delay = min(2*delay, cfg.LastRetry)
	}
}

// An observer stands on both sides of the Reflector: it makes its requests and takes what it stores, and so knows when
// both agree.
type observer struct {
	cfg Config

	mu           sync.Mutex
	open, synced bool
}

// ListWithContext implements cache.ListerWatcherWithContext.
func (o *observer) ListWithContext(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
	opts.FieldSelector = o.cfg.FieldSelector
	list, err := o.cfg.Source.List(ctx, opts)
	if err != nil {
		return nil, err
	}
	return list, nil
}

// WatchWithContext implements cache.ListerWatcherWithContext.
func (o *observer) WatchWithContext(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	opts.FieldSelector = o.cfg.FieldSelector
	w, err := o.cfg.Source.Watch(ctx, opts)
	if err == nil && reflect.TypeOf(w) == reflect.TypeOf(watch.NewEmptyWatch()) {
		// client-go's way of saying that the connection broke or timed out. It must not count as a watch, however short.
		err = errLost
	}
	// A watch that begins with the state has told nothing until Replace.
	fromStart := opts.SendInitialEvents != nil && *opts.SendInitialEvents
	if err != nil {
		// The Reflector keeps some failures to itself and tries again. A server that does not know such a watch is none: the
		// Reflector lists then.
		unknown := fromStart && (apierrors.IsInvalid(err) || apierrors.IsBadRequest(err))
		if ctx.Err() == nil && !unknown {
			o.cfg.Sink.Failed(err)
		}
		return nil, err
	}
	o.update(func() { o.open, o.synced = true, o.synced && !fromStart })
	return &observedWatch{Interface: w, o: o}, nil
}

// List and Watch are for callers of the older interface, of which the Reflector is none.
func (o *observer) List(opts metav1.ListOptions) (runtime.Object, error) {
	return o.ListWithContext(context.Background(), opts)
}

// Watch is the counterpart of List.
func (o *observer) Watch(opts metav1.ListOptions) (watch.Interface, error) {
	return o.WatchWithContext(context.Background(), opts)
}

// update changes open and synced and tells the sink if that makes a difference.
func (o *observer) update(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.open && o.synced
	change()
	if now := o.open && o.synced; now != before {
		o.cfg.Sink.Live(now)
	}
}

func (o *observer) closed() { o.update(func() { o.open = false }) }

var (
	errForeign = errors.New("an object of a form that was not asked for")
	errLost    = errors.New("the connection to the API server broke or timed out")
)

// Add implements cache.ReflectorStore.
func (o *observer) Add(obj any) error { return o.pass(obj, o.cfg.Sink.Set) }

// Update implements cache.ReflectorStore.
func (o *observer) Update(obj any) error { return o.pass(obj, o.cfg.Sink.Set) }

// Delete implements cache.ReflectorStore.
func (o *observer) Delete(obj any) error { return o.pass(obj, o.cfg.Sink.Remove) }

func (o *observer) pass(obj any, to func(*unstructured.Unstructured)) error {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return errForeign
	}
	to(u)
	return nil
}

// Replace implements cache.ReflectorStore.
func (o *observer) Replace(objs []any, _ string) error {
	all := make([]*unstructured.Unstructured, 0, len(objs))
	for _, obj := range objs {
		u, ok := obj.(*unstructured.Unstructured)
		if !ok {
			return errForeign
		}
		all = append(all, u)
	}
	o.cfg.Sink.Replace(all)
	o.update(func() { o.synced = true })
	return nil
}

// Resync implements cache.ReflectorStore; nothing asks for it.
func (o *observer) Resync() error { return nil }

// An observedWatch tells when it ends: the Reflector stops every watch that it is done with, or that broke.
type observedWatch struct {
	watch.Interface
	o *observer
}

func (w *observedWatch) Stop() {
	w.Interface.Stop()
	w.o.closed()
}
