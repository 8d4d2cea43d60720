package classes

import (
	"context"
	"reflect"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	v1 "keymount/api/v1"
	"keymount/internal/apiwatch"
	"keymount/internal/provider"
)

// A feed is one watch and what it tells: one class, or the classes of a namespace if key.name is "". Its fields are guarded
// by Classes.mu. It implements apiwatch.Sink.
type feed struct {
	c      *Classes
	k      key
	cancel context.CancelFunc
	// up says that the watch works; stopped that nobody wants to hear from it any more.
	up, stopped bool
	// began is Classes.uses when the watch began to tell the whole state.
	began int
}

// Run watches the classes in use until ctx is done, and returns nil then. It is called once.
func (c *Classes) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		c.arrange(ctx, &running)
		select {
		case <-c.changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// arrange starts the watches that are missing and ends those that nobody needs.
func (c *Classes) arrange(ctx context.Context, running *sync.WaitGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wanted := map[key]bool{}
	for namespace, entries := range c.used {
		whole := key{namespace, ""}
		if n := len(entries); n > maxByName || c.feeds[whole] != nil && n > maxByName/2 {
			wanted[whole] = true
			continue
		}
		for name := range entries {
			wanted[key{namespace, name}] = true
		}
	}
	for k, f := range c.feeds {
		if !wanted[k] {
			f.cancel()
			f.stopped, f.up = true, false
			delete(c.feeds, k)
			delete(c.failing, f)
		}
	}
	for k := range wanted {
		if c.feeds[k] == nil {
			c.feeds[k] = c.start(ctx, k, running)
		}
	}
}

func (c *Classes) start(ctx context.Context, k key, running *sync.WaitGroup) *feed {
	ctx, cancel := context.WithCancel(ctx)
	f := &feed{c: c, k: k, cancel: cancel}
	selector := ""
	if k.name != "" {
		selector = fields.OneTermEqualSelector("metadata.name", k.name).String()
	}
	running.Go(func() {
		defer cancel()
		apiwatch.Run(ctx, apiwatch.Config{Source: source{f}, Sink: f, FieldSelector: selector,
			FirstRetry: c.cfg.FirstRetry, LastRetry: c.cfg.LastRetry})
	})
	return f
}

// live says whether a watch keeps the class k. c.mu is held.
func (c *Classes) live(k key) bool {
	for _, k := range []key{k, {k.namespace, ""}} {
		if f := c.feeds[k]; f != nil && f.up {
			return true
		}
	}
	return false
}

// heard calls f with the lock held, unless the watch has been ended.
func (f *feed) heard(do func()) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if !f.stopped {
		do()
	}
}

// entries returns the classes in use that the feed tells of, by name.
func (f *feed) entries() map[string]*entry {
	all := f.c.used[f.k.namespace]
	if f.k.name == "" {
		return all
	}
	if e := all[f.k.name]; e != nil {
		return map[string]*entry{f.k.name: e}
	}
	return nil
}

// Replace implements apiwatch.Sink.
func (f *feed) Replace(objects []*unstructured.Unstructured) {
	f.heard(func() {
		byName := make(map[string]*unstructured.Unstructured, len(objects))
		for _, object := range objects {
			byName[object.GetName()] = object
		}
		for name, e := range f.entries() {
			// What came into use meanwhile may have been left out, see source.
			if object := byName[name]; object != nil || e.born <= f.began {
				f.note(name, object)
			}
		}
	})
}

// Set implements apiwatch.Sink.
func (f *feed) Set(object *unstructured.Unstructured) {
	f.heard(func() { f.note(object.GetName(), object) })
}

// Remove implements apiwatch.Sink.
func (f *feed) Remove(object *unstructured.Unstructured) {
	f.heard(func() { f.note(object.GetName(), nil) })
}

// note keeps the state of a class if it is in use; a nil object is one that does not exist.
func (f *feed) note(name string, object *unstructured.Unstructured) {
	e := f.entries()[name]
	if e == nil {
		return
	}
	e.told++
	k := key{f.k.namespace, name}
	if object == nil {
		f.c.tell(e, nil, k.failure(apierrors.NewNotFound(schema.GroupResource{Group: v1.Group, Resource: resource}, name)))
		return
	}
	class, err := f.c.parse(k, object)
	f.c.tell(e, class, err)
}

// Live implements apiwatch.Sink.
func (f *feed) Live(live bool) {
	f.heard(func() {
		f.up = live
		if live && f.c.failing[f] {
			delete(f.c.failing, f)
			if len(f.c.failing) == 0 {
				f.c.cfg.Log.Info("watching SecretProviderClasses works again")
			}
		}
	})
}

// Failed implements apiwatch.Sink. However many watches fail, it is one outage and one line.
func (f *feed) Failed(err error) {
	f.heard(func() {
		if len(f.c.failing) == 0 {
			f.c.cfg.Log.Warn("watching SecretProviderClasses does not work; until it does, each is read when it is needed",
				"err", provider.OneLine(err.Error(), maxText))
		}
		f.c.failing[f] = true
	})
}

// A source makes the requests of a feed. What it gets of classes that no volume uses it drops: should one come into use, it
// is read.
type source struct{ *feed }

// begins notes that the whole state is about to come, as far as it is in use now.
func (s source) begins() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.began = s.c.uses
}

func (s source) used(name string) bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.c.used[s.k.namespace][name] != nil
}

// List implements apiwatch.Source.
func (s source) List(ctx context.Context, opts metav1.ListOptions) (list *unstructured.UnstructuredList, err error) {
	if opts.Continue == "" {
		s.begins()
	}
	err = s.c.versions.try(func(gvr schema.GroupVersionResource) (err error) {
		list, err = s.c.client.Resource(gvr).Namespace(s.k.namespace).List(ctx, opts)
		return err
	})
	if err == nil {
		list.Items = slices.DeleteFunc(list.Items, func(u unstructured.Unstructured) bool { return !s.used(u.GetName()) })
	}
	return list, err
}

// Watch implements apiwatch.Source.
func (s source) Watch(ctx context.Context, opts metav1.ListOptions) (w watch.Interface, err error) {
	if opts.SendInitialEvents != nil && *opts.SendInitialEvents {
		s.begins()
	}
	err = s.c.versions.try(func(gvr schema.GroupVersionResource) (err error) {
		w, err = s.c.client.Resource(gvr).Namespace(s.k.namespace).Watch(ctx, opts)
		return err
	})
	if err != nil || reflect.TypeOf(w) == reflect.TypeOf(watch.NewEmptyWatch()) { // which apiwatch knows by its type
		return w, err
	}
	return filter(w, s.used), nil
}
