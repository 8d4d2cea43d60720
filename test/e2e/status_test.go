//go:build integration && linux

package e2e

import (
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keymount/test/e2e/rig"
)

// A podStatus is what kubectl get secretproviderclasspodstatus shows of a volume.
type podStatus struct {
	metav1.ObjectMeta `json:"metadata"`
	Status            struct {
		PodName                 string `json:"podName"`
		SecretProviderClassName string `json:"secretProviderClassName"`
		Mounted                 bool   `json:"mounted"`
		TargetPath              string `json:"targetPath"`
		Objects                 []struct {
			ID      string `json:"id"`
			Version string `json:"version"`
		} `json:"objects"`
		Conditions []metav1.Condition `json:"conditions"`
	} `json:"status"`
}

const podStatusKind = "secrets-store.csi.x-k8s.io/v1/SecretProviderClassPodStatus"

// statuses are those of the scenario's pods, by name.
func statuses(s *rig.Scenario) []podStatus {
	s.Helper()
	all := rig.List[podStatus](s, podStatusKind)
	slices.SortFunc(all, func(a, b podStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// version is that of an object of the volume, "" if it has none of that id.
func (p podStatus) version(id string) string {
	for _, o := range p.Status.Objects {
		if o.ID == id {
			return o.Version
		}
	}
	return ""
}

// upToDate is the state of the condition UpToDate, with its reason and message.
func (p podStatus) upToDate() (state, reason, message string) {
	return p.condition("UpToDate")
}

func (p podStatus) condition(kind string) (state, reason, message string) {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return string(c.Status), c.Reason, c.Message
		}
	}
	return "", "", ""
}
