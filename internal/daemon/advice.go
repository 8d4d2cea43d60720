package daemon

import (
	"context"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"keymount/internal/provider"
)

// adviceWithin bounds the one read that advice is worth.
const adviceWithin = 15 * time.Second

// An adviser looks once, at the start, whether the cluster is set up as the flags need it. Nothing depends on its answer:
// what it finds would else show days later, as a secret that was never rotated.
type adviser struct {
	api        *rest.Config
	driverName string
	rotation   bool
	log        *slog.Logger
}

// Run reads the CSIDriver object, says what is wrong, and returns nil when ctx is done or there is nothing left to say.
func (a *adviser) Run(ctx context.Context) error {
	client, err := dynamic.NewForConfig(a.api)
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, adviceWithin)
	defer cancel()
	drivers := schema.GroupVersionResource{Group: "storage.k8s.io", Version: "v1", Resource: "csidrivers"}
	object, err := client.Resource(drivers).Get(within, a.driverName, metav1.GetOptions{})
	if ctx.Err() == nil {
		a.judge(object, err)
	}
	return nil
}

func (a *adviser) judge(object *unstructured.Unstructured, err error) {
	switch {
	case apierrors.IsNotFound(err):
		a.log.Warn("there is no CSIDriver object of this driver's name: kubelet mounts nothing until there is", "driver", a.driverName)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		// The rights may name another object; whoever needs this one says so.
	case err != nil:
		a.log.Warn("the API server does not answer: volumes that are mounted are served, first mounts fail until it does",
			"err", provider.OneLine(err.Error(), 512))
	case !field(object, "podInfoOnMount"):
		a.log.Warn("the CSIDriver object does not have podInfoOnMount: true: no volume can be mounted", "driver", a.driverName)
	case a.rotation && !field(object, "requiresRepublish"):
		a.log.Warn("rotation is switched on, and will not happen: the CSIDriver object needs requiresRepublish: true, so that kubelet calls again",
			"driver", a.driverName)
	}
}

// field returns a field of the object's spec, false for one that is not there.
func field(object *unstructured.Unstructured, name string) bool {
	value, _, _ := unstructured.NestedBool(object.Object, "spec", name)
	return value
}
