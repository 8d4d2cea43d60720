package providertest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/singleflight"

	"keymount/internal/provider"
	"keymount/internal/provider/providertest"
)

const defectEnv = "KEYMOUNT_TEST_DEFECT"

// defective wraps a provider in a fault that has happened to somebody.
type defective func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error)

// An entry is a fault and how the suite has to see it.
type entry struct {
	seenBy string // part of the name of a test of the suite
	says   string // part of what it prints
	fault  defective
}

// defects returns faults by name.
func defects() map[string]entry {
	var mu sync.Mutex
	cache := map[string]*provider.Bundle{}
	var flights singleflight.Group
	return map[string]entry{
		"the cache forgets who asks": {"before_and_after", "who may not read got a bundle (true)", func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error) {
			mu.Lock()
			b := cache[req.Parameters["objects"]]
			mu.Unlock()
			if b != nil {
				return b, nil
			}
			b, err := p.Fetch(ctx, req)
			if err == nil {
				mu.Lock()
				cache[req.Parameters["objects"]] = b
				mu.Unlock()
			}
			return b, err
		}},
		"a flight forgets who asks": {"at_the_moment", "who may not read got a bundle (true)", func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error) {
			b, err, _ := flights.Do(req.Parameters["objects"], func() (any, error) { return p.Fetch(ctx, req) })
			return b.(*provider.Bundle), err
		}},
		"only the first failure": {"every_failed", "failures map", func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error) {
			b, err := p.Fetch(ctx, req)
			if err != nil {
				return nil, provider.ErrorsOf(err)[0]
			}
			return b, nil
		}},
		"a part of the bundle": {"every_failed", "got a bundle (true)", func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error) {
			b, err := p.Fetch(ctx, req)
			if err != nil {
				return &provider.Bundle{}, err
			}
			return b, nil
		}},
		"no kinds": {"its_kind", "kind internal, want", func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error) {
			b, err := p.Fetch(ctx, req)
			if err != nil {
				return nil, errors.New(err.Error())
			}
			return b, nil
		}},
		"a credential in the error": {"its_kind", "a secret is in the text", func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error) {
			b, err := p.Fetch(ctx, req)
			for _, e := range provider.ErrorsOf(err) {
				e.Message += " with " + req.Secrets["password"].Reveal()
			}
			return b, err
		}},
		"deaf to cancellation": {"cancelled_call", "test timed out", func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error) {
			return p.Fetch(context.WithoutCancel(ctx), req)
		}},
		"files in any order": {"stable_order", "the same request gave", func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error) {
			b, err := p.Fetch(ctx, req)
			if b != nil {
				rand.Shuffle(len(b.Files), func(i, j int) { b.Files[i], b.Files[j] = b.Files[j], b.Files[i] })
			}
			return b, err
		}},
		"as of a time to come": {"stable_order", "which is to come", func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error) {
			b, err := p.Fetch(ctx, req)
			if b != nil {
				b.AsOf = time.Now().Add(time.Hour)
			}
			return b, err
		}},
		"a new version each time": {"version_changes", "the contents did not", func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error) {
			b, err := p.Fetch(ctx, req)
			if b != nil {
				b.Versions[0].Version = strconv.Itoa(rand.Int())
			}
			return b, err
		}},
		"always the same version": {"version_changes", "the changed object went", func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error) {
			b, err := p.Fetch(ctx, req)
			if b != nil {
				b.Versions[0].Version = "1"
			}
			return b, err
		}},
		"wider modes": {"default_mode", "want 400", func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error) {
			b, err := p.Fetch(ctx, req)
			if b != nil {
				b.Files[0].Mode |= 0o044
			}
			return b, err
		}},
		"the request changed": {"the_request", "was changed", func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error) {
			b, err := p.Fetch(ctx, req)
			delete(req.Parameters, "objects")
			return b, err
		}},
		"one at a time": {"disturbs_nobody", "the other call failed", func(ctx context.Context, p provider.Provider, req *provider.Request) (*provider.Bundle, error) {
			mu.Lock()
			defer mu.Unlock()
			b, err := p.Fetch(ctx, req)
			if ctx.Err() != nil {
				// The waiters are told of an end that was not theirs.
				cache["cancelled"] = &provider.Bundle{}
			}
			if cache["cancelled"] != nil {
				return nil, context.Canceled
			}
			return b, err
		}},
	}
}

type wrapped struct {
	provider.Provider
	fault defective
}

func (w wrapped) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	return w.fault(ctx, w.Provider, req)
}

// Each fault makes the suite fail, in the test that is there for it. The suite runs in a child process, since its failures
// would be this test's own.
func TestSuiteSeesDefects(t *testing.T) {
	if name := os.Getenv(defectEnv); name != "" {
		fault := defects()[name].fault
		providertest.Run(t, func(*testing.T) *providertest.Harness {
			h := providertest.NewFake().Harness()
			h.Provider = wrapped{h.Provider, fault}
			return h
		})
		return
	}
	for name, defect := range defects() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := "1m"
			if defect.says == "test timed out" { // a call that does not return: no time is enough
				timeout = "2s"
			}
			cmd := exec.Command(os.Args[0], "-test.run=^TestSuiteSeesDefects$/"+defect.seenBy, "-test.timeout="+timeout)
			cmd.Env = append(os.Environ(), defectEnv+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), defect.says) {
				t.Errorf("the suite did not see it in %q (%v):\n%s", defect.seenBy, err, out)
			}
		})
	}
}
