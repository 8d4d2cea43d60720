package classes_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
)

const group = "/apis/secrets-store.csi.x-k8s.io/"

// A server is an API server for one kind of object: it gets, lists and watches over real HTTP, counts what it is asked, and
// can be told to misbehave.
type server struct {
	*httptest.Server

	mu      sync.Mutex
	objects map[string]map[string]any // by namespace/name
	rv      int
	events  []event
	// oldest is the first resource version that a watch may start from; what is older is gone.
	oldest  int
	changed chan struct{} // closed, and made anew, when anything changes
	cuts    int           // how often all watches were cut
	open    map[string]int
	// counts holds how many requests came, by verb and what they were for.
	counts map[string]int
	// served are the versions that are served.
	served []string
	// streams says whether a watch may begin with the state.
	streams bool
	// refuse answers a request by itself and says so.
	refuse func(w http.ResponseWriter, r *http.Request, verb string) bool
}

type event struct {
	rv     int
	kind   string
	key    string
	object map[string]any
}

func newServer(t *testing.T) *server {
	s := &server{objects: map[string]map[string]any{}, rv: 100, changed: make(chan struct{}), open: map[string]int{},
		counts: map[string]int{}, served: []string{"v1", "v1alpha1"}, streams: true}
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func (s *server) api() *rest.Config { return &rest.Config{Host: s.URL, QPS: -1} }

// with runs f with the lock held and wakes the watches.
func (s *server) with(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// put makes or changes a class; edit may be nil.
func (s *server) put(namespace, name string, edit func(object map[string]any)) {
	s.with(func() {
		s.rv++
		key, kind, generation := namespace+"/"+name, "ADDED", 1
		if old, ok := s.objects[key]; ok {
			kind, generation = "MODIFIED", old["metadata"].(map[string]any)["generation"].(int)+1
		}
		object := map[string]any{
			"kind": "SecretProviderClass",
			"metadata": map[string]any{"namespace": namespace, "name": name, "uid": "uid-" + name, "generation": generation,
				"resourceVersion": strconv.Itoa(s.rv), "managedFields": []any{map[string]any{"manager": "kubectl"}}},
			"spec": map[string]any{"provider": "azure", "parameters": map[string]any{"keyvaultName": "v"}},
		}
		if edit != nil {
			edit(object)
		}
		s.objects[key] = object
		s.events = append(s.events, event{s.rv, kind, key, object})
	})
}

func (s *server) remove(namespace, name string) {
	s.with(func() {
		s.rv++
		key := namespace + "/" + name
		s.events = append(s.events, event{s.rv, "DELETED", key, maps.Clone(s.objects[key])})
		delete(s.objects, key)
	})
}

// cut breaks every watch.
func (s *server) cut() { s.with(func() { s.cuts++ }) }

// forget makes every resource version up to now too old to watch from.
func (s *server) forget() { s.with(func() { s.events, s.oldest = nil, s.rv+1 }) }

func (s *server) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[what]
}

// watches returns what is being watched now: namespace/name, or namespace/.
func (s *server) watches() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for key, n := range s.open {
		for range n {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, group), "/") // version, namespaces, NS, secretproviderclasses, NAME
	if !strings.HasPrefix(r.URL.Path, group) || len(parts) < 4 || parts[3] != "secretproviderclasses" {
		http.NotFound(w, r)
		return
	}
	name, _ := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	verb := "list"
	switch {
	case len(parts) == 5:
		verb, name = "get", parts[4]
	case r.URL.Query().Get("watch") != "":
		verb = "watch"
	}
	s.mu.Lock()
	s.counts["all"]++
	s.counts[verb]++
	s.counts[verb+" "+parts[0]]++
	refuse, served := s.refuse, slices.Contains(s.served, parts[0])
	s.mu.Unlock()
	switch {
	case refuse != nil && refuse(w, r, verb):
	case !served:
		http.NotFound(w, r)
	case verb == "get":
		s.get(w, parts[0], parts[2], name)
	case verb == "list":
		s.list(w, r, parts[0], parts[2], name)
	default:
		s.watch(w, r, parts[0], parts[2], name)
	}
}

// fail answers as the API server does, with a Status.
func fail(w http.ResponseWriter, code int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(status(code, reason, message))
}

func status(code int, reason, message string) map[string]any {
	return map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}
}

func (s *server) as(version string, object map[string]any) map[string]any {
	out := maps.Clone(object)
	out["apiVersion"] = "secrets-store.csi.x-k8s.io/" + version
	return out
}

func (s *server) get(w http.ResponseWriter, version, namespace, name string) {
	s.mu.Lock()
	object := s.objects[namespace+"/"+name]
	s.mu.Unlock()
	if object == nil {
		fail(w, 404, "NotFound", fmt.Sprintf("secretproviderclasses.secrets-store.csi.x-k8s.io %q not found", name))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(s.as(version, object))
}

// match says whether the key is what a watch on namespace and name, "" for all, is for.
func match(key, namespace, name string) bool {
	return key == namespace+"/"+name || name == "" && strings.HasPrefix(key, namespace+"/")
}

func (s *server) list(w http.ResponseWriter, r *http.Request, version, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := []any{}
	for key, object := range s.objects {
		if match(key, namespace, name) {
			items = append(items, s.as(version, object))
		}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"kind": "SecretProviderClassList", "apiVersion": "secrets-store.csi.x-k8s.io/" + version,
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(s.rv)}, "items": items})
}

func (s *server) watch(w http.ResponseWriter, r *http.Request, version, namespace, name string) {
	q := r.URL.Query()
	since, _ := strconv.Atoi(q.Get("resourceVersion"))
	initial := q.Get("sendInitialEvents") == "true"
	s.mu.Lock()
	switch {
	case initial && !s.streams:
		s.mu.Unlock()
		fail(w, 422, "Invalid", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled")
		return
	case !initial && since < s.oldest-1:
		s.counts["gone"]++
		s.mu.Unlock()
		fail(w, 410, "Expired", "too old resource version")
		return
	}
	key, cuts := namespace+"/"+name, s.cuts
	s.open[key]++
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	send := func(kind string, object map[string]any) { enc.Encode(map[string]any{"type": kind, "object": object}) }
	if initial {
		for k, object := range s.objects {
			if match(k, namespace, name) {
				send("ADDED", s.as(version, object))
			}
		}
		send("BOOKMARK", s.as(version, map[string]any{"kind": "SecretProviderClass", "metadata": map[string]any{
			"resourceVersion": strconv.Itoa(s.rv), "annotations": map[string]any{"k8s.io/initial-events-end": "true"}}}))
		since = s.rv
	}
	for s.cuts == cuts && r.Context().Err() == nil {
		for _, e := range s.events {
			if e.rv > since && match(e.key, namespace, name) {
				send(e.kind, s.as(version, e.object))
			}
		}
		since = s.rv
		changed := s.changed
		s.mu.Unlock()
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
		}
		s.mu.Lock()
	}
	if s.open[key]--; s.open[key] == 0 {
		delete(s.open, key)
	}
	s.mu.Unlock()
	if r.Context().Err() == nil {
		panic(http.ErrAbortHandler) // the connection breaks in the middle of the answer
	}
}
