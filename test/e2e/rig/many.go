//go:build integration && linux

package rig

import (
	"cmp"
	"fmt"
	"slices"
)

// AllReady waits until the scenario's namespace has n pods and all are Ready, and returns them in the order of their names.
func (s *Scenario) AllReady(n int) []*Pod {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	var all []*Pod
	err := s.pods.await(ctx, func() error {
		all = nil
		waiting := 0
		for _, p := range s.pods.list() {
			switch {
			case p.Namespace != s.Namespace || p.DeletionTimestamp != nil:
			case ready(p):
				all = append(all, &Pod{s: s, Name: p.Name, Node: p.Spec.NodeName, UID: string(p.UID)})
			default:
				waiting++
			}
		}
		if len(all) != n || waiting > 0 {
			return fmt.Errorf("%d are Ready, %d are not", len(all), waiting)
		}
		return nil
	})
	if err != nil {
		s.Fatalf("waiting for %d pods to be Ready: %v\n%s", n, err, s.describe())
	}
	slices.SortFunc(all, func(a, b *Pod) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
