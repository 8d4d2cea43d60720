package secretsync

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"keymount/internal/publish"
)

const (
	// fieldManager is who wrote what, in managedFields.
	fieldManager = "keymount"
	// maxTries bounds how often one task starts anew because others write the same Secret.
	maxTries = 5
)

// A classState is a class in the state from which a Secret is made.
type classState struct {
	publish.Class
	uid        string
	generation int64
}

// A task is one try to sync one Secret for one volume, by the one who has the Secret's turn.
type task struct {
	*Syncer
	class  classState
	name   string
	asOf   time.Time
	owners []owner
	// want makes what the Secret is to be. Where nothing is overwritten it is asked only if there is no Secret.
	want      func() (*desired, error)
	overwrite bool

	// What came of it:
	action publish.SecretAction
	// exists says that the class's Secret is there, whatever it holds; looked that it is known.
	exists, looked bool
	// overtaken says that the Secret holds something else, and newer.
	overtaken bool
	// adopted says that owners were added to a Secret that was there.
	adopted bool
	// found is the Secret as it was read, seen as it now is.
	found, seen seen
}

var errBusy = errors.New("others write the Secret all the time")

func (t *task) run(ctx context.Context) error {
	for range maxTries {
		again, err := t.try(ctx)
		if err != nil || !again {
			return err
		}
	}
	return errBusy
}

func (t *task) try(ctx context.Context) (again bool, err error) {
	have, err := t.read(ctx)
	switch {
	case apierrors.IsNotFound(err):
		t.exists, t.looked = false, true
		return t.create(ctx)
	case err != nil:
		return false, err
	}
	t.looked = true
	if err := t.claim(ctx, have); err != nil {
		return false, err
	}
	t.exists = true
	t.found = seen{resourceVersion: have.GetResourceVersion(), note: sumOfNote(have), asOf: have.note.AsOf}
	return t.change(ctx, have)
}

// A have is a Secret that is there.
type have struct {
	metav1.Object
	note note
	// What follows is known of one that was read whole.
	kind      string
	immutable bool
	data      map[string]string // in base64
}

// read reads the Secret, without its content where that does not matter.
func (t *task) read(ctx context.Context) (*have, error) {
	if !t.overwrite {
		object, err := t.metadata.Resource(secretsResource).Namespace(t.class.Namespace).Get(ctx, t.name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return &have{Object: object, note: parseNote(object.Annotations[Note])}, nil
	}
	object, err := t.objects.Namespace(t.class.Namespace).Get(ctx, t.name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	h := &have{Object: object, note: parseNote(object.GetAnnotations()[Note])}
	h.kind, _, _ = unstructured.NestedString(object.Object, "type")
	h.immutable, _, _ = unstructured.NestedBool(object.Object, "immutable")
	h.data, _, _ = unstructured.NestedStringMap(object.Object, "data")
	return h, nil
}

// create makes the Secret, with its owners. In a namespace that is being removed it is done without.
func (t *task) create(ctx context.Context) (again bool, err error) {
	w, err := t.want()
	if err != nil {
		return false, err
	}
	n := t.noteOf(w)
	annotations := maps.Clone(w.annotations)
	annotations[Note] = n.text()
	data := map[string]any{}
	for key, content := range w.data {
		data[key] = base64.StdEncoding.EncodeToString(content)
	}
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Secret", "type": w.kind, "data": data}}
	object.SetName(t.name)
	object.SetNamespace(t.class.Namespace)
	object.SetLabels(w.labels)
	object.SetAnnotations(annotations)
	object.SetOwnerReferences(t.owners)
	answer, err := t.objects.Namespace(t.class.Namespace).Create(ctx, object, metav1.CreateOptions{FieldManager: fieldManager})
	switch {
	case apierrors.IsAlreadyExists(err):
		return true, nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return false, errGone
	case err != nil:
		return false, &refused{err, w}
	}
	t.exists, t.action = true, publish.SecretCreated
	t.learn(answer, w)
	return false, nil
}

// change patches what is not as it should be, unless somebody changed the Secret since it was read.
func (t *task) change(ctx context.Context, h *have) (again bool, err error) {
	var w *desired
	content, metadata := map[string]any{}, map[string]any{}
	if t.overwrite {
		if w, err = t.want(); err != nil {
			return false, err
		}
		if content, metadata, err = t.differences(h, w); err != nil {
			return false, err
		}
	}
	action := publish.SecretKept
	if len(content) > 0 || len(metadata) > 0 {
		action = publish.SecretUpdated
	}
	if more := missing(h.GetOwnerReferences(), t.owners); len(more) > 0 {
		metadata["ownerReferences"] = append(h.GetOwnerReferences(), more...)
		if action == publish.SecretKept {
			action = publish.SecretOwned
		}
	}
	if action == publish.SecretKept {
		t.learn(h, w)
		return false, nil
	}
	metadata["resourceVersion"] = h.GetResourceVersion()
	patch := map[string]any{"metadata": metadata}
	if len(content) > 0 {
		patch["data"] = content
	}
	body, err := json.Marshal(patch)
	if err != nil {
		return false, err
	}
	answer, err := t.metadata.Resource(secretsResource).Namespace(t.class.Namespace).
		Patch(ctx, t.name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: fieldManager})
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return true, nil
	case err != nil && w != nil:
		return false, &refused{err, w}
	case err != nil:
		return false, err
	}
	t.action, t.adopted = action, metadata["ownerReferences"] != nil
	t.learn(answer, w)
	return false, nil
}

// learn takes in what the Secret now is. What an admission plugin of the cluster changed is not changed back: that would never end.
func (t *task) learn(object metav1.Object, w *desired) {
	t.seen = seen{at: t.cfg.Now(), owners: map[types.UID]bool{}, resourceVersion: object.GetResourceVersion(), note: sumOfNote(object),
		asOf: parseNote(object.GetAnnotations()[Note]).AsOf}
	for _, o := range t.owners {
		t.seen.owners[o.UID] = has(object.GetOwnerReferences(), o)
	}
	if w != nil && !t.overtaken {
		t.seen.digest = t.digest(w)
	}
}

// differences returns what of the Secret is not as it should be, as parts of a merge patch: of its data, and of its metadata. Where the
// Secret is newer there are none.
func (t *task) differences(h *have, w *desired) (data, metadata map[string]any, err error) {
	data, metadata = map[string]any{}, map[string]any{}
	for key, content := range w.data {
		if text := base64.StdEncoding.EncodeToString(content); h.data[key] != text || !contains(h.data, key) {
			data[key] = text
		}
	}
	for _, key := range h.note.Keys {
		if _, ours := w.data[key]; !ours && contains(h.data, key) {
			data[key] = nil
		}
	}
	labels := textDifferences(h.GetLabels(), w.labels, h.note.Labels)
	annotations := textDifferences(h.GetAnnotations(), w.annotations, h.note.Annotations)
	if len(data)+len(labels)+len(annotations) == 0 && h.kind == w.kind {
		return data, metadata, nil
	}
	if h.note.newer(t) {
		t.overtaken = true
		return nil, map[string]any{}, nil
	}
	switch {
	case h.kind != w.kind:
		return nil, nil, &conflict{message: "it has the type " + quoted(h.kind) + ", the class asks for " + quoted(w.kind) + ", and a type cannot be changed",
			remedy: "delete the Secret, it is made again within minutes; or set the type in the class"}
	case h.immutable && len(data) > 0:
		return nil, nil, &conflict{message: "it is immutable, and its content is no longer that of the volume",
			remedy: "delete the Secret, it is made again within minutes"}
	}
	n := t.noteOf(w)
	annotations[Note] = n.text()
	metadata["annotations"] = annotations
	if len(labels) > 0 {
		metadata["labels"] = labels
	}
	return data, metadata, nil
}

// textDifferences returns which of the wanted texts are not there, and as null those that were ours and are not wanted any more.
func textDifferences(have, wanted map[string]string, ours []string) map[string]any {
	out := map[string]any{}
	for key, value := range wanted {
		if have[key] != value || !contains(have, key) {
			out[key] = value
		}
	}
	for _, key := range ours {
		if !contains(wanted, key) && contains(have, key) && key != managedLabel && key != Note {
			out[key] = nil
		}
	}
	return out
}

func contains(texts map[string]string, key string) bool {
	_, ok := texts[key]
	return ok
}
