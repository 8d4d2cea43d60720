//go:build integration && linux

package rig

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"
)

// An Inventory is what the API server holds, each object as KIND NAMESPACE/NAME.
type Inventory map[string]bool

// Without are the objects that are not in another inventory, in order.
func (i Inventory) Without(other Inventory) []string {
	var more []string
	for what := range i {
		if !other[what] {
			more = append(more, what)
		}
	}
	slices.Sort(more)
	return more
}

// Inventory lists all objects of all kinds, but for those that come and go with time, Events and leases, and those that are only another view of others.
func (s *Scenario) Inventory() Inventory {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	all, err := s.api.inventory(ctx)
	if err != nil {
		s.Fatalf("listing what the API server holds: %v", err)
	}
	return all
}

func (a *api) inventory(ctx context.Context) (Inventory, error) {
	config, err := clientcmd.BuildConfigFromFlags("", a.kubeconfig)
	if err != nil {
		return nil, err
	}
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	lists, err := client.ServerPreferredResources()
	if err != nil {
		return nil, fmt.Errorf("asking which kinds there are: %w", err)
	}
	all := Inventory{}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range list.APIResources {
			if slices.Contains([]string{"Event", "Lease", "Endpoints", "ComponentStatus"}, r.Kind) || !slices.Contains(r.Verbs, "list") {
				continue
			}
			if err := a.listInto(ctx, all, version.WithResource(r.Name), r.Kind); err != nil {
				return nil, err
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("it holds nothing")
	}
	return all, nil
}

func (a *api) listInto(ctx context.Context, all Inventory, resource schema.GroupVersionResource, kind string) error {
	found, err := a.client.Resource(resource).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) { // a kind that is going
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing %s: %w", resource.Resource, err)
	}
	for _, o := range found.Items {
		all[kind+" "+o.GetNamespace()+"/"+o.GetName()] = true
	}
	return nil
}
