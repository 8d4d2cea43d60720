// Package serviceaccount reads annotations of service accounts, for providers that take settings from there.
//
// Only metadata is asked for, and what came is kept for a minute, so that many pods of one service account that start
// together are one request. The package imports the provider contract and client-go's metadata client. Every method may be
// called from any number of goroutines.
package serviceaccount

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"keymount/internal/apierror"
	"keymount/internal/provider"
)

const (
	// keepFor is how old what is returned may be, keepFailureFor how long a failure is not tried again.
	keepFor        = time.Minute
	keepFailureFor = 10 * time.Second
	// outlives is how old they may become while the API server does not answer: volumes are refreshed without it.
	outlives = time.Hour
	// maxKept bounds the service accounts that are kept.
	maxKept = 1024
	// maxValues bounds the annotations that are returned for one of them.
	maxValues   = 16 << 10
	readTimeout = 10 * time.Second
	maxText     = 1024 // of an answer of the API server in an error
)

// Config says how to reach the API server.
type Config struct {
	API *rest.Config
	Log *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Reader reads annotations.
type Reader struct {
	cfg    Config
	client metadata.Interface
	reads  singleflight.Group

	mu     sync.Mutex
	kept   map[string]answer // by service account and wanted annotations
	denied bool              // that the right is missing has been said
}

type answer struct {
	values map[string]string
	err    error
	read   time.Time // when the values were
	until  time.Time
}

// New returns a Reader. It sends nothing.
func New(cfg Config) (*Reader, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	client, err := metadata.NewForConfig(cfg.API)
	if err != nil {
		return nil, fmt.Errorf("making a client for service accounts: %w", err)
	}
	return &Reader{cfg: cfg, client: client, kept: map[string]answer{}}, nil
}

// Annotations returns those of the annotations keys that the service account has, at most a minute old, or an hour
// while the API server does not answer. The map may be shared
// with other callers, so nobody changes it. The error is an *provider.Error.
func (r *Reader) Annotations(ctx context.Context, namespace, serviceAccount string, keys []string) (map[string]string, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	if problems := append(validation.ValidateNamespaceName(namespace, false),
		validation.ValidateServiceAccountName(serviceAccount, false)...); len(problems) > 0 {
		return nil, &provider.Error{Kind: provider.Invalid, Message: "reading the annotations of a service account: its name is none: " + problems[0]}
	}
	id := namespace + "/" + serviceAccount + "\x00" + strings.Join(keys, "\x00")
	r.mu.Lock()
	a, ok := r.kept[id]
	r.mu.Unlock()
	if ok && r.cfg.Now().Before(a.until) {
		return a.values, a.err
	}
	keys = slices.Clone(keys)
	// The read goes on when its caller leaves, since others wait for it.
	done := r.reads.DoChan(id, func() (any, error) {
		a := r.orBefore(id, r.read(namespace, serviceAccount, keys))
		r.keep(id, a)
		return a, nil
	})
	select {
	case got := <-done:
		a := got.Val.(answer)
		return a.values, a.err
	case <-ctx.Done():
		return nil, failure(namespace, serviceAccount, ctx.Err())
	}
}

func (r *Reader) read(namespace, serviceAccount string, keys []string) answer {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	accounts := schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	object, err := r.client.Resource(accounts).Namespace(namespace).Get(ctx, serviceAccount, metav1.GetOptions{})
	r.sayDenied(err)
	if err != nil {
		return answer{err: failure(namespace, serviceAccount, err), until: r.cfg.Now().Add(keepFailureFor)}
	}
	values, size := map[string]string{}, 0
	for _, key := range keys {
		if value, ok := object.Annotations[key]; ok {
			values[key] = value
			size += len(value)
		}
	}
	if size > maxValues {
		err := &provider.Error{Kind: provider.Invalid, Message: fmt.Sprintf(
			"reading the annotations of service account %s/%s: they are larger than %d bytes", namespace, serviceAccount, maxValues)}
		return answer{err: err, until: r.cfg.Now().Add(keepFailureFor)}
	}
	now := r.cfg.Now()
	return answer{values: values, read: now, until: now.Add(keepFor)}
}

// orBefore returns what was there before where the API server has not answered, for a while.
func (r *Reader) orBefore(id string, a answer) answer {
	if kind := provider.KindOf(a.err); a.err == nil || kind != provider.Unavailable && kind != provider.Throttled {
		return a
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	before, ok := r.kept[id]
	if age := r.cfg.Now().Sub(before.read); !ok || before.err != nil || age < 0 || age > outlives {
		return a
	}
	before.until = a.until
	return before
}

func (r *Reader) keep(id string, a answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) >= maxKept {
		now := r.cfg.Now()
		for old, a := range r.kept {
			if !now.Before(a.until) {
				delete(r.kept, old)
			}
		}
	}
	if len(r.kept) < maxKept {
		r.kept[id] = a
	}
}

// sayDenied logs once that the right is missing, and once that it is there.
func (r *Reader) sayDenied(err error) {
	if err != nil && !apierrors.IsForbidden(err) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil && !r.denied:
		r.cfg.Log.Warn("annotations of service accounts cannot be read: the driver's service account lacks get on serviceaccounts",
			"flag", "--service-account-annotations", "err", provider.OneLine(err.Error(), maxText))
	case err == nil && r.denied:
		r.cfg.Log.Info("annotations of service accounts can be read again")
	}
	r.denied = err != nil
}

// failure puts an error of the API server into the terms of the contract.
func failure(namespace, serviceAccount string, err error) *provider.Error {
	e := &provider.Error{Kind: apierror.Kind(err), Cause: err, RetryAfter: apierror.RetryAfter(err),
		Message: fmt.Sprintf("reading the annotations of service account %s/%s: %s", namespace, serviceAccount, provider.OneLine(err.Error(), maxText))}
	switch e.Kind {
	case provider.Denied:
		e.Remedy = "the driver's service account needs the right get on serviceaccounts, or leave --service-account-annotations out"
	case provider.NotFound:
		e.Remedy = "create the service account that the pod names"
	}
	return e
}
