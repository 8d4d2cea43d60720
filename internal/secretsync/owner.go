package secretsync

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keymount/internal/provider"
)

const (
	// maxOwners bounds how many owners are taken over from one pod, which as a rule has one; maxOwnerText each of their fields, in bytes, as names
	// are bounded; maxUnion those of all pods of a class.
	maxOwners    = 16
	maxOwnerText = 253
	maxUnion     = 1000
)

// errGone says that there is no such pod any more, so that nobody needs its Secrets.
var errGone = errors.New("the pod is gone")

// An owner is what keeps a Secret in being: it is collected when the last one goes.
type owner = metav1.OwnerReference

// ownersOf returns those of the member's pod, and those of the other members that are known. The pod is asked once: what owns it does not
// change as a rule, and what is added later is found after a restart.
func (s *Syncer) ownersOf(ctx context.Context, m *member) ([]owner, error) {
	own, err := s.ownOwners(ctx, m)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all, known := append([]owner(nil), own...), map[types.UID]bool{}
	for _, o := range own {
		known[o.UID] = true
	}
	for other := range m.group.members {
		for _, o := range other.owners {
			if !known[o.UID] && len(all) < maxUnion {
				known[o.UID] = true
				all = append(all, o)
			}
		}
	}
	return all, nil
}

// ownOwners returns those of the member's pod. Of several who ask at once, one for each Secret, one does.
func (s *Syncer) ownOwners(ctx context.Context, m *member) ([]owner, error) {
	known := func() []owner {
		s.mu.Lock()
		defer s.mu.Unlock()
		return m.owners
	}
	if own := known(); own != nil {
		return own, nil
	}
	select {
	case m.asking <- struct{}{}:
		defer func() { <-m.asking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if own := known(); own != nil {
		return own, nil
	}
	own, err := s.askOwners(ctx, m.volume.Request.Pod)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.owners = own
	return own, nil
}

func (s *Syncer) askOwners(ctx context.Context, pod provider.Pod) ([]owner, error) {
	if len(validation.ValidateNamespaceName(pod.Namespace, false)) > 0 || len(validation.NameIsDNSSubdomain(pod.Name, false)) > 0 || pod.UID == "" {
		return nil, &badObject{message: "the volume's pod is not known", remedy: "the CSIDriver object needs podInfoOnMount: true"}
	}
	object, err := s.metadata.Resource(podsResource).Namespace(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, errGone
	case err != nil:
		return nil, err
	case string(object.UID) != pod.UID && object.Annotations[corev1.MirrorPodAnnotationKey] != pod.UID: // a static pod has another uid there
		return nil, errGone
	}
	owners := []owner{}
	for _, o := range object.OwnerReferences {
		// The API server does not bound what a pod's author writes there.
		sized := len(o.APIVersion) <= maxOwnerText && len(o.Kind) <= maxOwnerText && len(o.Name) <= maxOwnerText && len(o.UID) <= maxOwnerText
		if sized && len(owners) < maxOwners {
			// Who controls the pod does not control its Secrets, and is not kept from going by them.
			owners = append(owners, owner{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: o.UID})
		}
	}
	if len(owners) == 0 {
		owners = append(owners, owner{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: object.UID})
	}
	return owners, nil
}

// missing returns those of the wanted owners that are not among those there are. One of the same name and another uid is another owner.
func missing(have, wanted []owner) (out []owner) {
	for _, w := range wanted {
		if !has(have, w) && !has(out, w) {
			out = append(out, w)
		}
	}
	return out
}

func has(list []owner, o owner) bool {
	for _, other := range list {
		if other.UID == o.UID {
			return true
		}
	}
	return false
}
