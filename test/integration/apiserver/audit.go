//go:build integration && linux

package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"keymount/test/integration/await"
)

// A Request is one request that the API server received.
type Request struct {
	User      string
	Verb      string // get, list, watch, create, update, patch, delete, deletecollection; of paths: get, post, ...
	Resource  string // resource[.group][/subresource], or the path of what is no resource
	Namespace string
	Name      string
	URI       string // with the query, so that a test sees the selectors of a watch
	Code      int    // 0 while it is not answered
}

// Requests returns what the user asked since the server started, in the order received. A request whose answer the user
// has seen is there. To count from a point on, take the length there and slice later answers.
func (s *Server) Requests(t testing.TB, user string) []Request {
	t.Helper()
	requests, err := s.audit.requests(user)
	if err != nil {
		t.Fatalf("reading the audit log: %v", err)
	}
	return requests
}

// Forbidden returns the user's requests that were refused for a missing right. It waits until all that the server received
// have been answered, watches aside.
func (s *Server) Forbidden(t testing.TB, user string) []Request {
	t.Helper()
	var forbidden []Request
	err := await.For(t.Context(), "answers to all requests of "+user, func(context.Context) error {
		requests, err := s.audit.requests(user)
		if err != nil {
			return await.Never(err)
		}
		forbidden = nil
		for _, r := range requests {
			if r.Code == 0 && r.Verb != "watch" {
				return fmt.Errorf("%s %s is not answered", r.Verb, r.URI)
			}
			if r.Code == http.StatusForbidden {
				forbidden = append(forbidden, r)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return forbidden
}

// Counts tells how often each verb was used on each resource, by "verb resource".
func Counts(requests []Request) map[string]int {
	counts := map[string]int{}
	for _, r := range requests {
		counts[r.Verb+" "+r.Resource]++
	}
	return counts
}

// An auditLog reads the server's audit log as it grows.
type auditLog struct {
	path string

	mu      sync.Mutex
	offset  int64          // how far the file was read, up to the end of a line
	order   []*Request     // as received
	pending map[string]int // the index in order, by audit id
}

func (a *auditLog) requests(user string) ([]Request, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.read(); err != nil {
		return nil, err
	}
	var own []Request
	for _, r := range a.order {
		if r.User == user {
			own = append(own, *r)
		}
	}
	return own, nil
}

func (a *auditLog) read() error {
	file, err := os.Open(a.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // nothing was asked yet
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Seek(a.offset, io.SeekStart); err != nil {
		return err
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	end := bytes.LastIndexByte(text, '\n') + 1 // what follows is still being written
	for line := range bytes.Lines(text[:end]) {
		if err := a.add(line); err != nil {
			return err
		}
	}
	a.offset += int64(end)
	return nil
}

func (a *auditLog) add(line []byte) error {
	var event struct {
		AuditID        string
		Stage          string
		RequestURI     string
		Verb           string
		User           struct{ Username string }
		ObjectRef      *struct{ Resource, Namespace, Name, APIGroup, Subresource string }
		ResponseStatus struct{ Code int }
	}
	if err := json.Unmarshal(line, &event); err != nil {
		return err
	}
	if event.Stage != "RequestReceived" {
		if i, ok := a.pending[event.AuditID]; ok {
			a.order[i].Code = event.ResponseStatus.Code
		}
		return nil
	}
	r := &Request{User: event.User.Username, Verb: event.Verb, URI: event.RequestURI}
	if ref := event.ObjectRef; ref != nil {
		r.Resource, r.Namespace, r.Name = ref.Resource, ref.Namespace, ref.Name
		if ref.APIGroup != "" {
			r.Resource += "." + ref.APIGroup
		}
		if ref.Subresource != "" {
			r.Resource += "/" + ref.Subresource
		}
	} else {
		r.Resource, _, _ = strings.Cut(event.RequestURI, "?")
	}
	if a.pending == nil {
		a.pending = map[string]int{}
	}
	a.pending[event.AuditID] = len(a.order)
	a.order = append(a.order, r)
	return nil
}
