//go:build integration && linux

package apiserver

import (
	"context"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"

	"keymount/test/integration/await"
)

// awaitRights waits until the authorizer knows the role bindings among the objects: it learns of them by a watch, some
// milliseconds after they were written, and a test that is faster would see a refusal that no cluster shows for long.
// One resource of each rule is asked about, for each service account that the binding names.
func (s *Server) awaitRights(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		if object.GroupVersionKind().Group != rbacv1.GroupName || !strings.HasSuffix(object.GetKind(), "RoleBinding") {
			continue
		}
		// Both kinds of binding have the same fields; only the namespace tells them apart.
		binding := &rbacv1.RoleBinding{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, binding); err != nil {
			return err
		}
		rules, err := s.rules(ctx, binding)
		if err != nil {
			return err
		}
		for _, subject := range binding.Subjects {
			if subject.Kind != rbacv1.ServiceAccountKind {
				continue
			}
			for _, rule := range rules {
				if err := s.awaitRight(ctx, User(subject.Namespace, subject.Name), binding.Namespace, rule); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *Server) rules(ctx context.Context, binding *rbacv1.RoleBinding) ([]rbacv1.PolicyRule, error) {
	var client dynamic.ResourceInterface = s.client.Resource(rbacv1.SchemeGroupVersion.WithResource("clusterroles"))
	if binding.RoleRef.Kind == "Role" {
		client = s.client.Resource(rbacv1.SchemeGroupVersion.WithResource("roles")).Namespace(binding.Namespace)
	}
	object, err := client.Get(ctx, binding.RoleRef.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil // a binding may come before its role
	}
	if err != nil {
		return nil, err
	}
	role := &rbacv1.ClusterRole{}
	return role.Rules, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, role)
}

func (s *Server) awaitRight(ctx context.Context, user, namespace string, rule rbacv1.PolicyRule) error {
	if len(rule.Verbs) == 0 || len(rule.APIGroups) == 0 || len(rule.Resources) == 0 {
		return nil // a rule about paths
	}
	resource, subresource, _ := strings.Cut(rule.Resources[0], "/")
	asked := &authorizationv1.ResourceAttributes{
		Namespace: namespace, Verb: rule.Verbs[0], Group: rule.APIGroups[0], Resource: resource, Subresource: subresource,
	}
	if len(rule.ResourceNames) > 0 {
		asked.Name = rule.ResourceNames[0]
	}
	review := &authorizationv1.SubjectAccessReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SubjectAccessReview"},
		Spec:     authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: asked},
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(review)
	if err != nil {
		return err
	}
	reviews := s.client.Resource(authorizationv1.SchemeGroupVersion.WithResource("subjectaccessreviews"))
	return await.For(ctx, fmt.Sprintf("%s to be allowed to %s %s", user, asked.Verb, rule.Resources[0]), func(ctx context.Context) error {
		answer, err := reviews.Create(ctx, &unstructured.Unstructured{Object: content}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		if allowed, _, _ := unstructured.NestedBool(answer.Object, "status", "allowed"); !allowed {
			return fmt.Errorf("the answer was %v", answer.Object["status"])
		}
		return nil
	})
}
