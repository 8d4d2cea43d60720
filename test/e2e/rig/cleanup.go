//go:build integration && linux

package rig

import "context"

// Context is the test's, and in its cleanups, when that one is done, one that is not: they use the cluster too. Every step has a bound of its own.
func (s *Scenario) Context() context.Context {
	ctx := s.T.Context()
	if ctx.Err() != nil {
		return context.WithoutCancel(ctx)
	}
	return ctx
}
