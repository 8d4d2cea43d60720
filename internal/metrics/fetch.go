package metrics

import (
	"context"
	"errors"

	"keymount/internal/provider"
)

// Instrument returns p with its fetches measured. It is for a provider that was found under this name, which from then on
// is a label value. Failures of fetches that have no error_type of their own get upstream's for them.
func (m *Metrics) Instrument(name string, p provider.Provider) provider.Provider {
	if m.providers.add(name) {
		m.fetches.Expect(name)
	}
	return &instrumented{Provider: p, metrics: m, label: m.providerLabel(name)}
}

type instrumented struct {
	provider.Provider
	metrics *Metrics
	label   string
}

var _ provider.TargetWriter = (*instrumented)(nil)

// errPanicked is what came of a fetch that did not return.
var errPanicked = errors.New("panicked")

// Fetch implements provider.Provider.
func (p *instrumented) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	end, result := p.metrics.fetches.Begin(p.label), errPanicked
	defer func() { end(result) }()
	b, err := p.Provider.Fetch(ctx, req)
	if result = err; err == nil {
		return b, nil
	}
	var typed Typed
	if !errors.As(err, &typed) {
		err = fetchError{err}
	}
	return b, err
}

// MayWriteTarget implements provider.TargetWriter.
func (p *instrumented) MayWriteTarget() bool {
	w, ok := p.Provider.(provider.TargetWriter)
	return ok && w.MayWriteTarget()
}

// A fetchError is what a provider said, in its words.
type fetchError struct{ error }

func (e fetchError) Unwrap() error   { return e.error }
func (fetchError) ErrorType() string { return errorProvider }
