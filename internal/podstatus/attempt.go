package podstatus

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	v1 "keymount/api/v1"
)

// fieldManager is who wrote what, in managedFields.
const fieldManager = "keymount"

var errBusy = errors.New("others write the object all the time")

// An attempt is one try to make the object say what is wanted, by the one who has the record's turn.
type attempt struct {
	*Recorder
	rec            *record
	want           want
	known          known
	first, written bool
	exists         map[string]bool // names by which there was an object a moment ago
}

// run writes what differs. Each try works on what the one before has learnt.
func (a *attempt) run(ctx context.Context) error {
	a.exists = map[string]bool{}
	for range maxTries {
		again, err := a.try(ctx)
		if err != nil || !again {
			return err
		}
	}
	return errBusy
}

func (a *attempt) try(ctx context.Context) (again bool, err error) {
	if a.known.name == "" && !a.known.succeeded {
		if done, again, err := a.locate(ctx); done || again || err != nil {
			return again, err
		}
	}
	if a.known.says(a.want, a.written, a.drops()) {
		return false, nil
	}
	return a.patch(ctx)
}

// locate finds the volume's object, or creates it. done says that nothing is left to do.
//
// A volume that was just made most likely has none, so that its object is created at once. One that this process finds
// mounted has one by one of its two names: whichever says that it is of this volume.
func (a *attempt) locate(ctx context.Context) (done, again bool, err error) {
	free := ""
	for _, name := range a.rec.names() {
		if a.first && a.want.objects != nil && !a.exists[name] {
			if done, err := a.create(ctx, name); done || err != nil {
				return done, false, err
			}
		}
		object, err := a.objects().Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) && a.exists[name]:
			delete(a.exists, name)
			return false, true, nil // it went away in between
		case apierrors.IsNotFound(err):
			if free == "" {
				free = name
			}
			continue
		case err != nil:
			return false, false, err
		}
		switch a.rec.judge(object, a.first && !a.written) {
		case mine:
			a.known = a.rec.read(object, a.cfg.NodeID)
			return false, false, nil
		case successors:
			if a.written {
				a.known = known{succeeded: true}
				return true, false, nil
			}
		}
	}
	switch {
	case a.want.objects == nil:
		return true, false, nil // there is nothing yet that a condition could be of
	case free == "":
		return false, false, errForeign
	}
	done, err = a.create(ctx, free)
	return done, !done, err
}

// create makes the object, whole; done is false if there is one by that name. In a namespace that is being removed it is done without: pods are
// among the last things that go, and nobody will read what is said of them.
func (a *attempt) create(ctx context.Context, name string) (done bool, err error) {
	object := a.rec.object(name, a.cfg.NodeID, a.want, a.now())
	answer, err := a.objects().Create(ctx, object, metav1.CreateOptions{FieldManager: fieldManager, FieldValidation: metav1.FieldValidationIgnore})
	switch {
	case apierrors.IsAlreadyExists(err):
		a.exists[name] = true
		return false, nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return true, nil
	case err != nil:
		return false, err
	}
	a.learn(answer)
	return true, nil
}

// patch changes what differs, unless somebody changed the object since it was last seen.
func (a *attempt) patch(ctx context.Context) (again bool, err error) {
	body, err := json.Marshal(a.known.patch(a.rec, a.want, a.now()))
	if err != nil {
		return false, err
	}
	answer, err := a.objects().Patch(ctx, a.known.name, types.MergePatchType, body,
		metav1.PatchOptions{FieldManager: fieldManager, FieldValidation: metav1.FieldValidationIgnore})
	switch {
	case apierrors.IsConflict(err):
		return true, a.reread(ctx)
	case apierrors.IsNotFound(err):
		a.known = known{}
		return true, nil
	case err != nil:
		return false, err
	}
	a.learn(answer)
	return false, nil
}

// reread looks at an object that somebody changed.
func (a *attempt) reread(ctx context.Context) error {
	object, err := a.objects().Get(ctx, a.known.name, metav1.GetOptions{})
	a.known = known{}
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	}
	switch a.rec.judge(object, a.first && !a.written) {
	case mine:
		a.known = a.rec.read(object, a.cfg.NodeID)
	case successors:
		a.known.succeeded = a.written
	}
	return nil
}

// learn takes in the answer to a write, which shows whether the cluster keeps conditions.
func (a *attempt) learn(answer *unstructured.Unstructured) {
	sent := a.known.conditions.with(a.want.conditions)
	a.known = a.rec.read(answer, a.cfg.NodeID)
	// What an admission plugin of the cluster changed is not changed back: that would never end.
	a.known.repair = nil
	if a.want.objects != nil {
		a.known.objects = a.want.objects.sum
	}
	a.written = true
	if sent == (conditions{}) {
		return
	}
	dropped := a.known.conditions == conditions{}
	a.noteDropped(dropped)
	for i, c := range sent {
		if !dropped && c.status != "" {
			a.known.conditions[i].status, a.known.conditions[i].reason = c.status, c.reason
		}
	}
}

func (a *attempt) objects() dynamic.ResourceInterface {
	return a.client.Resource(v1.GroupVersion().WithResource("secretproviderclasspodstatuses")).Namespace(a.rec.pod.Namespace)
}

func (a *attempt) now() string { return a.cfg.Now().UTC().Format(time.RFC3339) }

func (a *attempt) drops() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dropsConditions
}

// noteDropped notes whether the cluster's definition of the object lacks conditions.
func (r *Recorder) noteDropped(dropped bool) {
	r.mu.Lock()
	news := dropped && !r.dropsConditions
	r.dropsConditions = dropped
	r.mu.Unlock()
	if news {
		r.cfg.Log.Warn("the cluster's definition of SecretProviderClassPodStatus has no status.conditions, so objects do not "+
			"show which volumes could not be refreshed, nor whose Kubernetes Secrets could not be made; Keymount's definitions have it", "group", v1.Group)
	}
}
