// Package v1 holds the types of secrets-store.csi.x-k8s.io/v1, the version that is stored: SecretProviderClass and
// SecretProviderClassPodStatus, equal in names, JSON and schema to those of the Secrets Store CSI Driver, so that objects,
// manifests and tools of either work with the other. It holds no logic and imports apimachinery only; values are as safe
// for concurrent use as any struct.
//
// No field is required and none has a default or a list of values: whatever is wrong with a class is said when it is
// mounted, as upstream does. The definitions in api/crds and the deep copies are generated from this package.
//
// +kubebuilder:object:generate=true
// +groupName=secrets-store.csi.x-k8s.io
package v1
