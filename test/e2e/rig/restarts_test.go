//go:build integration && linux

package rig

import (
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRestartsBeforeTheRun(t *testing.T) {
	r := newRestarts()
	see := func(name string, age time.Duration, counts ...int32) {
		for _, n := range counts {
			r.see(&pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, CreationTimestamp: metav1.NewTime(r.begin.Add(-age))},
				Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "c", RestartCount: n}}},
			})
		}
	}
	see("kept", time.Hour, 2, 2)
	see("kept-and-restarted", time.Hour, 2, 3)
	see("kept-whole-and-restarted", time.Hour, 0, 1)
	see("new", -time.Second, 0)
	see("new-and-restarted", -time.Second, 1)
	if got := slices.Sorted(maps.Keys(r.seen)); !slices.Equal(got, []string{"ns/kept-and-restarted/c", "ns/kept-whole-and-restarted/c", "ns/new-and-restarted/c"}) {
		t.Errorf("restarted during the run are %v", got)
	}
}
