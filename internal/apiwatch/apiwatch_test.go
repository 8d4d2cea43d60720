package apiwatch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"

	"keymount/internal/apiwatch"
)

// A story records what a sink was told. All of it comes from one goroutine at a time.
type story struct{ lines []string }

func (s *story) say(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *story) Replace(objects []*unstructured.Unstructured) { s.say("replace %d", len(objects)) }
func (s *story) Set(object *unstructured.Unstructured)        { s.say("set %s", object.GetName()) }
func (s *story) Remove(object *unstructured.Unstructured)     { s.say("remove %s", object.GetName()) }
func (s *story) Live(live bool)                               { s.say("live %v", live) }
func (s *story) Failed(err error)                             { s.say("failed %v", err) }

// A script answers requests to watch, one entry each; the last one goes on for ever.
type script struct {
	answers []func(opts metav1.ListOptions) (watch.Interface, error)
	asked   []time.Time
	lists   int
	list    error
}

func (s *script) List(context.Context, metav1.ListOptions) (*unstructured.UnstructuredList, error) {
	s.lists++
	if s.list != nil {
		return nil, s.list
	}
	list := &unstructured.UnstructuredList{Items: []unstructured.Unstructured{*object("a", "5")}}
	list.SetResourceVersion("5")
	return list, nil
}

func (s *script) Watch(_ context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	s.asked = append(s.asked, time.Now())
	answer := s.answers[min(len(s.asked), len(s.answers))-1]
	return answer(opts)
}

func object(name, rv string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Thing"}}
	u.SetName(name)
	u.SetResourceVersion(rv)
	return u
}

// streams answers with a watch that first tells the state, then the events, and then ends if ends is set.
func streams(ends bool, events ...watch.Event) func(metav1.ListOptions) (watch.Interface, error) {
	return func(opts metav1.ListOptions) (watch.Interface, error) {
		w := watch.NewFakeWithChanSize(10, false)
		if opts.SendInitialEvents != nil {
			w.Add(object("a", "5"))
			end := object("", "6")
			end.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
			w.Action(watch.Bookmark, end)
		}
		for _, e := range events {
			w.Action(e.Type, e.Object)
		}
		if ends {
			w.Stop()
		}
		return w, nil
	}
}

func fails(err error) func(metav1.ListOptions) (watch.Interface, error) {
	return func(metav1.ListOptions) (watch.Interface, error) { return nil, err }
}

func lost(metav1.ListOptions) (watch.Interface, error) { return watch.NewEmptyWatch(), nil }

func TestStories(t *testing.T) {
	forbidden := apierrors.NewForbidden(metav1.Unversioned.WithResource("things").GroupResource(), "a", errors.New("no"))
	for _, tc := range []struct {
		name   string
		source script
		want   []string
		lists  int
	}{
		{"state, then events", script{answers: []func(metav1.ListOptions) (watch.Interface, error){streams(false,
			watch.Event{Type: watch.Modified, Object: object("a", "7")}, watch.Event{Type: watch.Deleted, Object: object("a", "8")})}},
			[]string{"replace 1", "live true", "set a", "remove a"}, 0},
		{"a watch that ends is opened again", script{answers: []func(metav1.ListOptions) (watch.Interface, error){
			streams(true, watch.Event{Type: watch.Modified, Object: object("a", "7")}), streams(false)}},
			[]string{"replace 1", "live true", "set a", "live false", "live true"}, 0},
		{"a server that cannot stream the state is none that fails", script{answers: []func(metav1.ListOptions) (watch.Interface, error){
			fails(apierrors.NewInvalid(metav1.Unversioned.WithKind("Things").GroupKind(), "", nil)), streams(false)}},
			[]string{"replace 1", "live true"}, 1},
		{"a lost connection is no watch", script{list: errors.New("away"), answers: []func(metav1.ListOptions) (watch.Interface, error){
			lost, streams(false)}},
			[]string{"failed the connection to the API server broke or timed out", "failed failed to list *unstructured.Unstructured: away", "replace 1", "live true"}, 1},
		{"denied", script{list: forbidden, answers: []func(metav1.ListOptions) (watch.Interface, error){fails(forbidden), streams(false)}},
			[]string{"failed " + forbidden.Error(), "failed failed to list *unstructured.Unstructured: " + forbidden.Error(), "replace 1", "live true"}, 1},
		{"told to slow down", script{answers: []func(metav1.ListOptions) (watch.Interface, error){
			fails(apierrors.NewTooManyRequests("slow", 1)), streams(false)}},
			[]string{"failed slow", "replace 1", "live true"}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				told := &story{}
				done := make(chan struct{})
				go func() {
					defer close(done)
					apiwatch.Run(ctx, apiwatch.Config{Source: &tc.source, Sink: told})
				}()
				time.Sleep(time.Minute)
				synctest.Wait()
				if !slices.Equal(told.lines, tc.want) || tc.source.lists != tc.lists {
					t.Errorf("told\n%s\nwant\n%s\nwith %d lists, want %d", strings.Join(told.lines, "\n"), strings.Join(tc.want, "\n"), tc.source.lists, tc.lists)
				}
				cancel()
				<-done
				if last := told.lines[len(told.lines)-1]; last != "live false" {
					t.Errorf("at the end it was told %q, want that nothing is up to date any more", last)
				}
			})
		})
	}
}

// A server that is away is not asked more often than every 30 s in the long run.
func TestFailuresSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
		defer cancel()
		source := &script{list: errors.New("away"), answers: []func(metav1.ListOptions) (watch.Interface, error){lost}}
		apiwatch.Run(ctx, apiwatch.Config{Source: source, Sink: &story{}})
		n := len(source.asked)
		if n < 20 || n > 50 {
			t.Errorf("%d tries in 20 minutes", n)
		}
		if first, last := source.asked[1].Sub(source.asked[0]), source.asked[n-1].Sub(source.asked[n-2]); first > 2*time.Second || last < 30*time.Second || last > time.Minute {
			t.Errorf("the pauses go from %v to %v", first, last)
		}
	})
}
