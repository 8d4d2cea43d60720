//go:build integration && linux

package rig

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// namespacePrefix begins the names of scenarios' namespaces. Pods of all others are the system's: their logs are followed.
const namespacePrefix = "e2e-"

// deleteNamespace removes a namespace, its pods first and without a long farewell.
func (a *api) deleteNamespace(ctx context.Context, name string) error {
	grace := int64(1)
	pods := a.client.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(name)
	if err := pods.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &grace}, metav1.ListOptions{}); err != nil {
		return err
	}
	return a.delete(ctx, "v1/Namespace", "", name)
}

// forget removes the namespaces of earlier runs on a cluster that was kept.
func (a *api) forget(ctx context.Context) error {
	all, err := a.client.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, n := range all.Items {
		if !strings.HasPrefix(n.GetName(), namespacePrefix) || n.GetDeletionTimestamp() != nil {
			continue
		}
		if err := a.deleteNamespace(ctx, n.GetName()); err != nil {
			return err
		}
	}
	return nil
}
