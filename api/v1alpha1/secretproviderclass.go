package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// A Provider is the name of a provider, which is also that of its socket.
type Provider string

// SecretProviderClass says what a volume holds: which provider reads it, and with which parameters.
//
// +kubebuilder:object:root=true
// +kubebuilder:deprecatedversion:warning="secrets-store.csi.x-k8s.io/v1alpha1 is deprecated. Use secrets-store.csi.x-k8s.io/v1 instead."
type SecretProviderClass struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   SecretProviderClassSpec   `json:"spec,omitempty"`
	Status SecretProviderClassStatus `json:"status,omitempty"`
}

// SecretProviderClassSpec is what the author of a class writes.
type SecretProviderClassSpec struct {
	// The provider that reads the objects, such as azure.
	Provider Provider `json:"provider,omitempty"`
	// What the provider is to read and how; each provider has its own parameters.
	Parameters map[string]string `json:"parameters,omitempty"`
	// Kubernetes Secrets to make from the mounted files.
	SecretObjects []*SecretObject `json:"secretObjects,omitempty"`
}

// SecretObject is one Kubernetes Secret made from mounted files.
type SecretObject struct {
	// The name of the Secret.
	SecretName string `json:"secretName,omitempty"`
	// The type of the Secret, such as Opaque or kubernetes.io/tls.
	Type string `json:"type,omitempty"`
	// Labels of the Secret.
	Labels map[string]string `json:"labels,omitempty"`
	// Annotations of the Secret.
	Annotations map[string]string `json:"annotations,omitempty"`
	// The keys of the Secret.
	Data []*SecretObjectData `json:"data,omitempty"`
}

// SecretObjectData is one key of a Secret.
type SecretObjectData struct {
	// The path of the file, relative to the volume, that the value is taken from.
	ObjectName string `json:"objectName,omitempty"`
	// The key in the Secret.
	Key string `json:"key,omitempty"`
}

// SecretProviderClassStatus was meant to list the pods that use the class; nobody writes it.
type SecretProviderClassStatus struct {
	// The pods that use the class.
	ByPod []*ByPodStatus `json:"byPod,omitempty"`
}

// ByPodStatus is one pod that uses a class.
type ByPodStatus struct {
	// The id of the pod.
	ID string `json:"id,omitempty"`
	// The namespace of the pod.
	Namespace string `json:"namespace,omitempty"`
}

// SecretProviderClassList is a list of classes.
//
// +kubebuilder:object:root=true
type SecretProviderClassList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []SecretProviderClass `json:"items"`
}
