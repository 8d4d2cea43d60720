package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SecretProviderClassPodStatus says what one pod's volume of a class holds.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
type SecretProviderClassPodStatus struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status SecretProviderClassPodStatusStatus `json:"status,omitempty"`
}

// SecretProviderClassPodStatusStatus is what the driver last wrote about the volume. It is no subresource.
type SecretProviderClassPodStatusStatus struct {
	// The name of the pod.
	PodName string `json:"podName,omitempty"`
	// The name of the class.
	SecretProviderClassName string `json:"secretProviderClassName,omitempty"`
	// Whether the volume is mounted.
	Mounted bool `json:"mounted,omitempty"`
	// Where kubelet has the volume on the node.
	TargetPath string `json:"targetPath,omitempty"`
	// The objects that the volume holds, sorted by id.
	Objects []SecretProviderClassObject `json:"objects,omitempty"`
}

// SecretProviderClassObject is one object that a volume holds.
type SecretProviderClassObject struct {
	// The id of the object, in the provider's terms.
	ID string `json:"id,omitempty"`
	// The version of the object, in the provider's terms; it changes when the content does.
	Version string `json:"version,omitempty"`
}

// SecretProviderClassPodStatusList is a list of pod statuses.
//
// +kubebuilder:object:root=true
type SecretProviderClassPodStatusList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []SecretProviderClassPodStatus `json:"items"`
}
