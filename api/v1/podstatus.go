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
	// What is known of the volume: see SecretProviderClassPodStatusCondition.
	Conditions []SecretProviderClassPodStatusCondition `json:"conditions,omitempty"`
}

// SecretProviderClassObject is one object that a volume holds.
type SecretProviderClassObject struct {
	// The id of the object, in the provider's terms.
	ID string `json:"id,omitempty"`
	// The version of the object, in the provider's terms; it changes when the content does.
	Version string `json:"version,omitempty"`
}

// The types of conditions. One that is absent says that nothing is wrong.
const (
	// UpToDate says whether the last refresh of the volume succeeded.
	UpToDate = "UpToDate"
	// SecretsSynced says whether the Kubernetes Secrets that the class asks for could be made of what the volume holds. A volume whose
	// Secrets never failed does not have it.
	SecretsSynced = "SecretsSynced"
)

// SecretProviderClassPodStatusCondition has the JSON of a metav1.Condition, without its rules: upstream's definition of this
// object has none, and whatever is in a cluster must stay valid, whoever wrote it. A cluster with upstream's definition
// drops conditions.
type SecretProviderClassPodStatusCondition struct {
	// The type of the condition, in CamelCase. UpToDate says whether the last refresh of the volume succeeded; a volume
	// of which that is not true still holds what it held.
	Type string `json:"type,omitempty"`
	// True, False or Unknown.
	Status string `json:"status,omitempty"`
	// Why, as one word in CamelCase.
	Reason string `json:"reason,omitempty"`
	// Why, for people. It is that of the moment when status or reason last changed.
	Message string `json:"message,omitempty"`
	// When the status last changed.
	LastTransitionTime metav1.Time `json:"lastTransitionTime,omitempty,omitzero"`
	// The generation of the object that the condition was made from; Keymount does not set it.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// SecretProviderClassPodStatusList is a list of pod statuses.
//
// +kubebuilder:object:root=true
type SecretProviderClassPodStatusList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []SecretProviderClassPodStatus `json:"items"`
}
