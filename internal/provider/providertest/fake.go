package providertest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"keymount/internal/provider"
)

// A Fake is a provider that keeps its objects in memory and passes the suite. Its parameter "objects" is a list of names,
// separated by commas; each becomes a file of that name. Who asks is the pod's service account.
type Fake struct {
	mu      sync.Mutex
	objects map[string]*object // by name
	calls   int
}

// An object's fields are guarded by Fake.mu.
type object struct {
	value     string
	version   int
	broken    bool
	kind      provider.Kind // while broken
	forbidden map[Who]bool
	hold      chan struct{} // closed by release; nil when not held
	reached   chan struct{} // closed by the first read that waits
}

// NewFake returns a Fake without objects.
func NewFake() *Fake { return &Fake{objects: map[string]*object{}} }

// Harness returns the fake as a harness for Run.
func (f *Fake) Harness() *Harness {
	return &Harness{
		Provider: f, Request: f.Request, Set: f.Set, Break: f.Break, Mend: f.Mend, Forbid: f.Forbid, Hold: f.Hold,
	}
}

// Request returns a request that who would make for the objects.
func (f *Fake) Request(who Who, objects ...string) *provider.Request {
	return &provider.Request{
		Pod: provider.Pod{Namespace: "ns", Name: string(who) + "-0", UID: string(who) + "-uid", ServiceAccount: string(who)},
		Tokens: map[string]provider.Token{
			"audience": {Value: provider.Sensitive("token-of-" + who), Proof: provider.ProvenByRequest},
		},
		Parameters:  map[string]string{"objects": strings.Join(objects, ",")},
		Secrets:     map[string]provider.Sensitive{"password": provider.Sensitive("password-of-" + who)},
		TargetPath:  "/target/" + string(who),
		DefaultMode: 0o644,
	}
}

// Set implements Harness.Set.
func (f *Fake) Set(name, value string) {
	f.change(name, func(o *object) { o.value, o.version = value, o.version+1 })
}

// Break implements Harness.Break.
func (f *Fake) Break(name string, kind provider.Kind) {
	f.change(name, func(o *object) { o.broken, o.kind = true, kind })
}

// Mend implements Harness.Mend.
func (f *Fake) Mend(name string) { f.change(name, func(o *object) { o.broken = false }) }

// Forbid implements Harness.Forbid.
func (f *Fake) Forbid(who Who, name string) {
	f.change(name, func(o *object) { o.forbidden[who] = true })
}

// Hold implements Harness.Hold.
func (f *Fake) Hold(name string) (reached <-chan struct{}, release func()) {
	hold, arrived := make(chan struct{}), make(chan struct{})
	f.change(name, func(o *object) { o.hold, o.reached = hold, arrived })
	return arrived, sync.OnceFunc(func() {
		f.change(name, func(o *object) {
			if o.hold == hold {
				o.hold, o.reached = nil, nil
			}
		})
		close(hold)
	})
}

// Calls returns how often Fetch was called.
func (f *Fake) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *Fake) change(name string, do func(*object)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.objects[name]
	if o == nil {
		o = &object{forbidden: map[Who]bool{}}
		f.objects[name] = o
	}
	do(o)
}

// Fetch implements provider.Provider.
func (f *Fake) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	f.mu.Lock()
	f.calls++
	f.mu.Unlock()
	var failures provider.Errors
	out := &provider.Bundle{}
	for _, name := range strings.Split(req.Parameters["objects"], ",") {
		if name == "" {
			continue
		}
		value, version, err := f.read(ctx, Who(req.Pod.ServiceAccount), name)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		id := "secret/" + name
		out.Versions = append(out.Versions, provider.ObjectVersion{ID: id, Version: strconv.Itoa(version)})
		out.Files = append(out.Files, provider.File{
			Path: name, Mode: req.DefaultMode, Contents: provider.Contents(value), Object: id,
		})
	}
	if len(failures) > 0 {
		return nil, failures
	}
	return out, nil
}

func (f *Fake) read(ctx context.Context, who Who, name string) (value string, version int, failure *provider.Error) {
	if err := f.wait(ctx, name); err != nil {
		return "", 0, &provider.Error{Kind: provider.Unavailable, Object: "secret/" + name, Cause: err,
			Message: fmt.Sprintf("reading %s: %v", name, err)}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.objects[name]
	fail := func(kind provider.Kind, remedy string) *provider.Error {
		return &provider.Error{Kind: kind, Object: "secret/" + name, Remedy: remedy,
			Message: fmt.Sprintf("reading %s: %s", name, kind)}
	}
	switch {
	case o == nil || o.version == 0:
		return "", 0, fail(provider.NotFound, "set it")
	case o.broken:
		return "", 0, fail(o.kind, "mend it")
	case o.forbidden[who]:
		return "", 0, fail(provider.Denied, "do not forbid it")
	}
	return o.value, o.version, nil
}

// wait waits while the object is held.
func (f *Fake) wait(ctx context.Context, name string) error {
	f.mu.Lock()
	var hold chan struct{}
	if o := f.objects[name]; o != nil && o.hold != nil {
		hold = o.hold
		select {
		case <-o.reached:
		default:
			close(o.reached)
		}
	}
	f.mu.Unlock()
	if hold == nil {
		return ctx.Err()
	}
	select {
	case <-hold:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
