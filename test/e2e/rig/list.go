//go:build integration && linux

package rig

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// List reads all objects of a kind in the scenario's namespace into typed values; kind is as for Get.
func List[T any](s *Scenario, kind string) []T {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	client, err := s.api.resource(parseKind(kind), s.Namespace)
	if err != nil {
		s.Fatalf("listing %s: %v", kind, err)
	}
	found, err := client.List(ctx, metav1.ListOptions{})
	if err != nil {
		s.Fatalf("listing %s: %v", kind, err)
	}
	all := make([]T, len(found.Items))
	for i := range found.Items {
		if err := convert(&found.Items[i], &all[i]); err != nil {
			s.Fatalf("reading %s %s: %v", kind, found.Items[i].GetName(), err)
		}
	}
	return all
}

// Neighbour makes a second scenario beside this one, with a namespace, a vault and an application of its own.
func (s *Scenario) Neighbour() *Scenario {
	s.Helper()
	return s.scenario(s.T, "Neighbour")
}
