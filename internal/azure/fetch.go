package azure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"keymount/internal/azure/identity"
	"keymount/internal/azure/params"
	"keymount/internal/azure/vault"
	"keymount/internal/pfx"
	"keymount/internal/provider"
)

// maxBundle bounds the contents of one bundle, in bytes, as the volume that takes it is bounded. Answers of a vault are
// bounded one by one only, and the vault may be the class author's own.
const maxBundle = 64 << 20

// maxWork bounds the rounds of key derivation for the certificates of one bundle: some seconds for somebody who means ill,
// and a thousand certificates as Key Vault and OpenSSL write them.
const maxWork = 20_000_000

// maxSaid bounds the failures and the warnings of one call.
const maxSaid = 100

// Fetch implements provider.Provider.
func (p *Provider) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	return guarded(p.log, func() (*provider.Bundle, error) { return p.fetch(ctx, req) })
}

func (p *Provider) fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	spec, err := p.parse(req)
	if err != nil {
		return nil, err
	}
	bundle := &provider.Bundle{Warnings: spec.Warnings}
	if len(spec.Objects) == 0 {
		return bundle, nil // an empty volume, for which nobody need be asked
	}
	who, err := p.identity.Credential(ctx, req, identity.Spec{
		Mode:           spec.Mode,
		TenantID:       spec.TenantID,
		ClientID:       spec.ClientID,
		UserAssignedID: spec.UserAssignedID,
		Authority:      spec.Cloud.AuthorityHost,
		Resource:       spec.Cloud.Resource,
	})
	if err != nil {
		return nil, err
	}
	m := &mount{Provider: p, spec: spec, who: who, mode: req.DefaultMode, work: pfx.NewBudget(maxWork),
		helpers: make(chan struct{}, max(minParallel, p.cfg.ReadsInFlightPerVault)-1)}
	defer m.done()
	window := &vault.Window{NotBefore: req.NotBefore}
	parts, err := m.readAll(vault.Within(ctx, window))
	if err != nil {
		return nil, err
	}
	bundle.AsOf = window.Oldest()
	var claims []params.Claim
	for _, part := range parts {
		bundle.Warnings = append(bundle.Warnings, part.warnings...)
		for _, f := range part.files {
			bundle.Files = append(bundle.Files, f)
			bundle.Versions = append(bundle.Versions, provider.ObjectVersion{ID: f.Object, Version: part.version})
			claims = append(claims, params.Claim{Path: f.Path, Owner: part.object})
		}
	}
	if err := conflicting(claims); err != nil {
		return nil, err
	}
	if more := len(bundle.Warnings) - maxSaid; more > 0 {
		bundle.Warnings = append(bundle.Warnings[:maxSaid:maxSaid], fmt.Sprintf("there are %d more warnings", more))
	}
	return bundle, nil
}

// parse checks the request, all of it before anything is asked of anybody.
func (p *Provider) parse(req *provider.Request) (*params.Spec, error) {
	var problems provider.Errors
	const remedy = "kubelet sets it if the CSIDriver object has podInfoOnMount: true"
	if req.Pod.Name == "" {
		problems = append(problems, &provider.Error{Kind: provider.Invalid,
			Message: "csi.storage.k8s.io/pod.name: pod name is not provided", Remedy: remedy})
	}
	if req.Pod.Namespace == "" {
		problems = append(problems, &provider.Error{Kind: provider.Invalid,
			Message: "csi.storage.k8s.io/pod.namespace: pod namespace is not provided", Remedy: remedy})
	}
	spec, err := params.Parse(req.Parameters, params.Options{
		ServicePrincipal: len(req.Secrets) > 0,
		DefaultCloud:     p.cfg.CloudName,
		AuthorityHost:    p.cfg.AuthorityHost,
		CloudFile:        p.cloudFile,
	})
	if problems = append(problems, provider.ErrorsOf(err)...); len(problems) > 0 {
		return nil, problems
	}
	return spec, nil
}

// conflicting reports files that cannot be in one volume. What a class alone shows was refused before; this is about files
// that depend on what the vault holds, such as NAME.crt beside an object of that alias.
func conflicting(claims []params.Claim) error {
	var problems provider.Errors
	for _, c := range params.Conflicts(claims) {
		message, remedy := c.Text()
		problems = append(problems, &provider.Error{Kind: provider.Invalid, Object: c.Second.Owner.ID(), Message: message, Remedy: remedy})
	}
	if len(problems) == 0 {
		return nil
	}
	return problems
}

// A mount is one Fetch under way.
type mount struct {
	*Provider
	spec *params.Spec
	who  *identity.Credential
	mode fs.FileMode
	size atomic.Int64 // bytes of contents so far
	work *pfx.Budget
	stop context.CancelCauseFunc
	// helpers bounds what runs at the same time, see inParallel.
	helpers chan struct{}
	growing sync.Mutex
	large   bool // it has one of the places; guarded by growing
}

// A part is what one version of one object adds to the bundle.
type part struct {
	object   *params.Object
	version  string
	files    []provider.File
	warnings []string
}

var errTooLarge = errors.New("the bundle is too large")

// readAll reads many objects at the same time; how much of that reaches a vault at once is the vault client's affair.
func (m *mount) readAll(ctx context.Context) ([]part, error) {
	ctx, cancel := early(ctx)
	defer cancel()
	ctx, m.stop = context.WithCancelCause(ctx)
	defer m.stop(nil)
	objects := m.spec.Objects
	parts, errs := inParallel(m.log, m.helpers, len(objects), func(i int) ([]part, error) { return m.readObject(ctx, &objects[i]) })
	if context.Cause(ctx) == errTooLarge {
		return nil, &provider.Error{
			Kind:    provider.Invalid,
			Message: fmt.Sprintf("the objects of vault %s are larger than %d bytes together", m.spec.Vault, maxBundle),
			Remedy:  "split the class into several",
		}
	}
	if err := joined(errs); err != nil {
		return nil, err
	}
	return slices.Concat(parts...), nil
}

// early ends a little before ctx does, so that a caller on the other side of a socket, whose own clock is cut off at the
// same moment, still hears what was being waited for.
func early(ctx context.Context) (context.Context, context.CancelFunc) {
	const most = 500 * time.Millisecond
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/10, most)))
}

// readObject reads one entry of the class, which may be several versions.
func (m *mount) readObject(ctx context.Context, o *params.Object) ([]part, error) {
	if o.History == 0 {
		one, err := m.readVersion(ctx, o, o.Version, 0)
		return []part{one}, err
	}
	versions, err := m.history(ctx, o)
	if err != nil {
		return nil, err
	}
	parts, errs := inParallel(m.log, m.helpers, len(versions), func(i int) (part, error) { return m.readVersion(ctx, o, versions[i], i) })
	return parts, joined(errs)
}

// guarded turns a panic of do into an error: it would otherwise end the process, for every pod of the node. What was thrown
// may hold anything and is not repeated.
func guarded[T any](log *slog.Logger, do func() (T, error)) (value T, err error) {
	defer func() {
		if thrown := recover(); thrown != nil {
			log.Error("a mount panicked", "panic", panicText(thrown), "stack", string(debug.Stack()))
			var none T
			value, err = none, &provider.Error{
				Kind:    provider.Internal,
				Message: "the Azure provider has a defect that this request brought out",
				Remedy:  "its log has the stack: report it to its maintainers",
			}
		}
	}()
	return do()
}

func panicText(thrown any) string {
	if e, ok := thrown.(runtime.Error); ok {
		return e.Error() // of the language, such as an index out of range
	}
	return fmt.Sprintf("a value of type %T", thrown)
}

// joined returns all failures, in the order of the class. That of a credential is every object's, and is returned once.
func joined(errs []error) error {
	var all provider.Errors
	said := map[string]bool{}
	for _, err := range errs {
		for _, e := range provider.ErrorsOf(err) {
			if e.Object == "" {
				if said[e.Message] {
					continue
				}
				said[e.Message] = true
			}
			all = append(all, e)
		}
	}
	switch {
	case len(all) == 0:
		return nil
	case len(all) == 1:
		return all[0]
	case len(all) > maxSaid:
		rest := all[maxSaid:]
		all = append(all[:maxSaid:maxSaid], &provider.Error{Kind: provider.KindOf(rest), Message: fmt.Sprintf("%d more objects failed", len(rest))})
	}
	return all
}
