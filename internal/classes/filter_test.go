package classes

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

func object(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"namespace": "ns", "name": name}, "spec": map[string]any{"provider": "azure"}}}
}

// Whoever fills a namespace with classes that nobody uses must not fill the memory of nodes that watch it.
func TestClassesThatNobodyUsesAreDropped(t *testing.T) {
	from := watch.NewFake()
	w := filter(from, func(name string) bool { return name == "used" })
	go func() {
		from.Add(object("other"))
		from.Add(object("used"))
		from.Modify(object("other"))
		from.Action(watch.Bookmark, object("")) // it names nothing
		from.Delete(object("used"))
		from.Error(&metav1.Status{})
		from.Stop()
	}()
	var got []watch.EventType
	for event := range w.ResultChan() {
		got = append(got, event.Type)
	}
	if want := []watch.EventType{watch.Added, watch.Bookmark, watch.Deleted, watch.Error}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// client-go stops a watch without taking what is on its way.
func TestAWatchEndsWithWhatNobodyTakes(t *testing.T) {
	from := watch.NewFake()
	w := filter(from, func(string) bool { return true })
	from.Add(object("used")) // it is in run now
	w.Stop()
	w.Stop()
	for range w.ResultChan() { // ends when run does
	}
}

// A class that comes into use while the state of its namespace is coming is not taken for one that does not exist.
func TestAClassThatComesIntoUseMeanwhile(t *testing.T) {
	c, err := New(Config{API: &rest.Config{Host: "http://127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	c.Use("1", "ns", "there")
	c.Use("2", "ns", "gone")
	f := &feed{c: c, k: key{"ns", ""}}
	s := source{f}
	s.begins()
	if s.used("late") || !s.used("there") {
		t.Error("what is in use is not told apart")
	}
	c.Use("3", "ns", "late")
	f.Replace([]*unstructured.Unstructured{object("there")})
	e := c.used["ns"]
	if e["there"].class == nil || e["gone"].err == nil || e["late"].known {
		t.Errorf("got %+v, %+v, %+v", e["there"], e["gone"], e["late"])
	}
	f.Set(object("late"))
	if e["late"].class == nil {
		t.Error("its events are not heard")
	}
}
