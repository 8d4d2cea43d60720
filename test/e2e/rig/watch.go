//go:build integration && linux

package rig

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

type (
	pod   = corev1.Pod
	event = corev1.Event
)

// watched are all objects of one kind of the core group, as last seen, so that whoever waits for one asks the server nothing.
type watched[T any] struct {
	informer cache.SharedIndexInformer

	mu      sync.Mutex
	objects map[string]*T // by namespace/name
	changed chan struct{} // closed and replaced at every change
}

// watch begins to watch a resource of the core group. each is called for every state of an object that is seen, one at a time.
func watch[T any](ctx context.Context, a *api, resource string, each func(*T)) *watched[T] {
	w := &watched[T]{objects: map[string]*T{}, changed: make(chan struct{})}
	client := a.client.Resource(corev1.SchemeGroupVersion.WithResource(resource))
	w.informer = cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return client.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			return client.Watch(ctx, o)
		},
	}, &unstructured.Unstructured{}, 0, cache.Indexers{})
	set := func(o any) {
		u, ok := o.(*unstructured.Unstructured)
		typed := new(T)
		if !ok || convert(u, typed) != nil {
			return // what the API server serves of a kind fits its type
		}
		if each != nil {
			each(typed)
		}
		w.set(u.GetNamespace()+"/"+u.GetName(), typed)
	}
	_, _ = w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{ // fails for a stopped informer only
		AddFunc: set, UpdateFunc: func(_, o any) { set(o) },
		DeleteFunc: func(o any) {
			if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
				w.set(key, nil)
			}
		},
	})
	go w.informer.Run(ctx.Done())
	return w
}

func (w *watched[T]) synced(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), w.informer.HasSynced) {
		return ctx.Err()
	}
	return nil
}

func (w *watched[T]) set(key string, o *T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.objects[key] = o; o == nil {
		delete(w.objects, key)
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *watched[T]) list() []*T {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]*T, 0, len(w.objects))
	for _, o := range w.objects {
		all = append(all, o)
	}
	return all
}

// get returns an object, nil if there is none.
func (w *watched[T]) get(key string) *T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.objects[key]
}

// await waits until ask returns nil; the error is its last answer.
func (w *watched[T]) await(ctx context.Context, ask func() error) error {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-changed:
		}
	}
}
