package classes

import (
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
)

// A filtered watch leaves out the classes that no volume uses. A namespace can have any number of them, of 1.5 MiB each, and
// client-go holds all that a watch begins with until the last one has come.
type filtered struct {
	watch.Interface
	keep   func(name string) bool
	result chan watch.Event
	done   chan struct{}
	stop   func()
}

// filter begins to filter; the watch that it returns ends with Stop, or when w does.
func filter(w watch.Interface, keep func(name string) bool) watch.Interface {
	f := &filtered{Interface: w, keep: keep, result: make(chan watch.Event), done: make(chan struct{})}
	f.stop = sync.OnceFunc(func() { close(f.done) })
	go f.run()
	return f
}

func (f *filtered) run() {
	defer close(f.result)
	for event := range f.Interface.ResultChan() {
		if !f.wanted(event) {
			continue
		}
		select {
		case f.result <- event:
		case <-f.done:
			return
		}
	}
}

// wanted says whether an event is passed on: what is not about a class that nobody uses, such as an error or a bookmark, is.
func (f *filtered) wanted(event watch.Event) bool {
	switch event.Type {
	case watch.Added, watch.Modified, watch.Deleted:
		object, ok := event.Object.(*unstructured.Unstructured)
		return !ok || f.keep(object.GetName())
	}
	return true
}

// ResultChan implements watch.Interface.
func (f *filtered) ResultChan() <-chan watch.Event { return f.result }

// Stop implements watch.Interface.
func (f *filtered) Stop() {
	f.stop()
	f.Interface.Stop()
}
