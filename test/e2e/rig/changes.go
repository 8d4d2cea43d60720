//go:build integration && linux

package rig

import (
	"context"
	"fmt"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	apiwatch "k8s.io/apimachinery/pkg/watch"
)

// changes are those of one object since somebody began to look.
type changes struct {
	mu   sync.Mutex
	all  []string
	last string // the resource version after the last one, "" if the object is gone
	over string // why no more are seen
}

// Changes begins to follow an object of the scenario's namespace that is there. The function returned tells what has happened to it since, up to this
// moment, each as MODIFIED, DELETED or ADDED; kind is as for Get.
func (s *Scenario) Changes(kind, name string) func() []string {
	s.Helper()
	client, err := s.api.resource(parseKind(kind), s.Namespace)
	if err != nil {
		s.Fatalf("following %s %s: %v", kind, name, err)
	}
	one := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
	now := func() (version string) {
		s.Helper()
		ctx, cancel := s.bound()
		defer cancel()
		found, err := client.List(ctx, one)
		if err != nil {
			s.Fatalf("following %s %s: %v", kind, name, err)
		}
		if len(found.Items) == 0 {
			return ""
		}
		return found.Items[0].GetResourceVersion()
	}
	version := now()
	if version == "" {
		s.Fatalf("there is no %s %s", kind, name)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.Context()))
	s.Cleanup(cancel)
	from := one
	from.ResourceVersion = version
	w, err := client.Watch(ctx, from)
	if err != nil {
		s.Fatalf("following %s %s: %v", kind, name, err)
	}
	c := &changes{last: version}
	go c.follow(w)
	return func() []string {
		s.Helper()
		var seen []string
		s.Await("the changes of "+kind+" "+name, func() (err error) {
			seen, err = c.upTo(now())
			return err
		})
		return seen
	}
}

func (c *changes) follow(w apiwatch.Interface) {
	for e := range w.ResultChan() {
		c.mu.Lock()
		if object, ok := e.Object.(metav1.Object); ok {
			c.all = append(c.all, string(e.Type))
			if c.last = object.GetResourceVersion(); e.Type == apiwatch.Deleted {
				c.last = ""
			}
		} else {
			c.over = fmt.Sprintf("the watch ended: %v", e.Object)
		}
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over == "" {
		c.over = "the watch ended"
	}
}

// upTo returns what was seen, if the object is of that version then, or gone if that is none.
func (c *changes) upTo(version string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != version {
		return nil, fmt.Errorf("it is of version %q, and is seen up to %q; %s", version, c.last, c.over)
	}
	return slices.Clone(c.all), nil
}
