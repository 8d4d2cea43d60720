package classes

import (
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	v1 "keymount/api/v1"
)

// oldFor is for how long the old version is asked first, once it is the one that is served.
const oldFor = 10 * time.Minute

const (
	resource   = "secretproviderclasses"
	oldVersion = "v1alpha1"
)

// versions knows which version of the API the server serves.
type versions struct {
	now func() time.Time
	log *slog.Logger

	mu  sync.Mutex
	old time.Time // when the old version was found to be the one that is served; zero: v1 is
}

// try calls f with the version that is believed to be served, and with the other one if it is not. The error is that of v1
// where neither is.
func (v *versions) try(f func(schema.GroupVersionResource) error) error {
	first, second := v.order()
	err := f(resourceIn(first))
	if !notServed(err) {
		v.note(first, err)
		return err
	}
	other := f(resourceIn(second))
	if !notServed(other) {
		v.note(second, other)
		return other
	}
	return err
}

func resourceIn(version string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: v1.Group, Version: version, Resource: resource}
}

func (v *versions) order() (first, second string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.old.IsZero() && v.now().Sub(v.old) < oldFor {
		return oldVersion, v1.Version
	}
	return v1.Version, oldVersion
}

// note remembers a version that answered; an answer that says nothing about versions, such as none at all, changes nothing.
func (v *versions) note(version string, err error) {
	if err != nil && !apierrors.IsNotFound(err) {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch was := v.old; {
	case version == v1.Version && !was.IsZero():
		v.old = time.Time{}
		v.log.Info("SecretProviderClasses are served as v1 again")
	case version == oldVersion && was.IsZero():
		v.old = v.now()
		v.log.Warn("SecretProviderClasses are served as v1alpha1 only; install the current definitions")
	case version == oldVersion && v.now().Sub(was) >= oldFor:
		v.old = v.now()
	}
}

// notServed says whether err is the API server's answer to a path that it does not serve, which differs from that for an
// object that does not exist in that it is no Status.
func notServed(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}
