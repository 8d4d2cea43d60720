//go:build integration && linux

package kubelet

import (
	"context"
	"encoding/json"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// TokensKey is where the driver finds the pod's service account tokens, in the volume context or in the secrets.
const TokensKey = "csi.storage.k8s.io/serviceAccount.tokens"

// podInfo is what the driver is told of the pod (csi_util.go getPodInfoAttrs).
func podInfo(pod *corev1.Pod) map[string]string {
	return map[string]string{
		"csi.storage.k8s.io/pod.name":            pod.Name,
		"csi.storage.k8s.io/pod.namespace":       pod.Namespace,
		"csi.storage.k8s.io/pod.uid":             string(pod.UID),
		"csi.storage.k8s.io/serviceAccount.name": pod.Spec.ServiceAccountName,
		"csi.storage.k8s.io/ephemeral":           "true",
	}
}

// tokens returns the tokens that the CSIDriver object asks for, by audience, as JSON, "" for none (csi_mounter.go
// podServiceAccountTokenAttrs). Each is bound to the pod. The audience "" is the API server's own.
func (v *Volume) tokens(ctx context.Context, object *storagev1.CSIDriver) (string, error) {
	if len(object.Spec.TokenRequests) == 0 {
		return "", nil
	}
	byAudience := map[string]authenticationv1.TokenRequestStatus{}
	for _, wanted := range object.Spec.TokenRequests {
		audiences := []string{wanted.Audience}
		if wanted.Audience == "" {
			audiences = []string{}
		}
		granted, err := v.kubelet.api.Token(ctx, v.pod.Namespace, v.pod.Spec.ServiceAccountName, &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{
				Audiences:         audiences,
				ExpirationSeconds: wanted.ExpirationSeconds,
				BoundObjectRef: &authenticationv1.BoundObjectReference{
					APIVersion: "v1", Kind: "Pod", Name: v.pod.Name, UID: v.pod.UID,
				},
			},
		})
		if err != nil {
			return "", err
		}
		byAudience[wanted.Audience] = granted.Status
	}
	text, err := json.Marshal(byAudience)
	return string(text), err
}
