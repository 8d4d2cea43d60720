package podstatus

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "keymount/api/v1"
	"keymount/internal/provider"
	"keymount/internal/publish"
)

const (
	nodeLabel = "internal.secrets-store.csi.k8s.io/node-name"
	maxName   = 253 // of an object
	keptName  = 236 // of the plain name, before '-' and 16 digits
)

// A sum stands for a list of objects.
type sum [sha256.Size]byte

// objects are what a volume holds, as its object lists them.
type objects struct {
	list         []any
	sum, trimmed sum
}

// objectsOf sorts by id; of an id that comes twice the last one counts, as with upstream.
func objectsOf(v *publish.Volume, versions []provider.ObjectVersion) (*objects, error) {
	byID, size := map[string]string{}, 0
	trimmed := map[string]string{}
	for _, o := range versions {
		id, version := strings.ToValidUTF8(o.ID, "\uFFFD"), strings.ToValidUTF8(o.Version, "\uFFFD")
		byID[id] = version
		trimmed[strings.TrimSpace(id)] = strings.TrimSpace(version)
	}
	for id, version := range byID {
		size += len(id) + len(version) + len(`{"id":"","version":""},`)
	}
	if size > maxObject {
		return nil, &provider.Error{Kind: provider.Invalid,
			Message: fmt.Sprintf("writing the status of volume %s: the ids and versions of its %d objects take %d bytes, more than the %d that an object of the API server can hold", provider.OneLine(v.ID, maxQuoted), len(byID), size, maxObject),
			Remedy:  "split the class"}
	}
	list := listOf(byID)
	return &objects{list: list, sum: sumOf(list), trimmed: sumOf(listOf(trimmed))}, nil
}

func listOf(byID map[string]string) []any {
	list := make([]any, 0, len(byID))
	for id, version := range byID {
		list = append(list, map[string]any{"id": id, "version": version})
	}
	slices.SortFunc(list, func(a, b any) int {
		return cmp.Compare(a.(map[string]any)["id"].(string), b.(map[string]any)["id"].(string))
	})
	return list
}

// sumOf takes any list; whatever is no id or version in it counts as "".
func sumOf(list []any) (out sum) {
	h := sha256.New()
	for _, item := range list {
		fields, _ := item.(map[string]any)
		for _, field := range []string{"id", "version"} {
			text, _ := fields[field].(string)
			_ = binary.Write(h, binary.BigEndian, uint64(len(text))) // a hash never fails
			h.Write([]byte(text))
		}
	}
	h.Sum(out[:0])
	return out
}

// names are those that the volume's object may have: upstream's, and one that no other volume can have.
func (rec *record) names() []string {
	plain := rec.pod.Name + "-" + rec.pod.Namespace + "-" + rec.class
	h := sha256.New()
	for _, part := range []string{rec.pod.UID, rec.id, rec.class} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	// A name may not have a dot before a hyphen.
	kept := strings.TrimRight(plain[:min(len(plain), keptName)], ".")
	own := kept + "-" + hex.EncodeToString(h.Sum(nil)[:8])
	if len(plain) > maxName {
		return []string{own}
	}
	return []string{plain, own}
}

// A verdict says whose an object is.
type verdict int

const (
	mine       verdict = iota // this volume's, or a gone pod's of the same name
	others                    // another pod's, or another volume's of this pod
	successors                // a pod's of the same name that is not this one
)

// judge tells whose an object is that has one of the volume's names. Pod, namespace and class run together in a name, and a
// pod may mount a class twice, so the content decides. A volume that was just made takes over what is left of a pod of the
// same name; any other pod of that name is newer.
func (rec *record) judge(object *unstructured.Unstructured, first bool) verdict {
	podName, _, _ := unstructured.NestedString(object.Object, "status", "podName")
	target, _, _ := unstructured.NestedString(object.Object, "status", "targetPath")
	owned := false
	for _, owner := range ownersOf(object) {
		if !isPod(owner) {
			continue
		}
		if owner["uid"] == rec.pod.UID {
			if target == "" || target == rec.target || object.GetName() != rec.names()[0] || len(rec.names()) == 1 {
				return mine
			}
			return others
		}
		owned = true
		if podName == "" {
			podName, _ = owner["name"].(string)
		}
	}
	switch {
	case podName != rec.pod.Name && (owned || podName != ""):
		return others
	case owned && !first:
		return successors
	}
	return mine
}

func ownersOf(object *unstructured.Unstructured) []map[string]any {
	metadata, _ := object.Object["metadata"].(map[string]any)
	list, _ := metadata["ownerReferences"].([]any)
	var out []map[string]any
	for _, item := range list {
		if owner, ok := item.(map[string]any); ok {
			out = append(out, owner)
		}
	}
	return out
}

func isPod(owner map[string]any) bool { return owner["kind"] == "Pod" && owner["apiVersion"] == "v1" }

func (rec *record) owner() map[string]any {
	return map[string]any{"apiVersion": "v1", "kind": "Pod", "name": rec.pod.Name, "uid": rec.pod.UID}
}

// status is what names the volume in the object's status.
func (rec *record) status() map[string]any {
	return map[string]any{"podName": rec.pod.Name, "secretProviderClassName": rec.class, "mounted": true, "targetPath": rec.target}
}

// object returns the whole object.
func (rec *record) object(name, node string, w want, now string) *unstructured.Unstructured {
	status := rec.status()
	if len(w.objects.list) > 0 {
		status["objects"] = w.objects.list
	}
	status["conditions"] = conditions{}.entries(w.conditions, now)
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1.GroupVersion().String(),
		"kind":       "SecretProviderClassPodStatus",
		"metadata": map[string]any{
			"name": name, "namespace": rec.pod.Namespace,
			"labels":          map[string]any{nodeLabel: node},
			"ownerReferences": []any{rec.owner()},
		},
		"status": status,
	}}
}

// read takes from an object what matters here, whatever else is in it.
func (rec *record) read(object *unstructured.Unstructured, node string) known {
	k := known{name: object.GetName(), resourceVersion: object.GetResourceVersion()}
	status, _ := object.Object["status"].(map[string]any)
	list, _ := status["objects"].([]any)
	k.objects = sumOf(list)
	items, _ := status["conditions"].([]any)
	k.conditions, k.others = readConditions(items)
	k.repair = rec.repair(object, status, node)
	return k
}

// repair returns what is to be changed so that the object names this volume, its pod and its node; nil if nothing is.
// What others put into its metadata stays.
func (rec *record) repair(object *unstructured.Unstructured, status map[string]any, node string) map[string]any {
	metadata := map[string]any{}
	if object.GetLabels()[nodeLabel] != node {
		metadata["labels"] = map[string]any{nodeLabel: node}
	}
	owners, owned, foreign := []any{}, false, false
	for _, owner := range ownersOf(object) {
		switch {
		case !isPod(owner):
			owners = append(owners, owner)
		case owner["uid"] == rec.pod.UID && owner["name"] == rec.pod.Name:
			owned = true
		default:
			foreign = true
		}
	}
	if !owned || foreign {
		metadata["ownerReferences"] = append(owners, rec.owner())
	}
	wrong := false
	for field, value := range rec.status() {
		wrong = wrong || status[field] != value
	}
	if len(metadata) == 0 && !wrong {
		return nil
	}
	return metadata
}

// patch returns the merge patch that makes the object say what is wanted.
func (k *known) patch(rec *record, w want, now string) map[string]any {
	metadata := map[string]any{}
	for field, value := range k.repair {
		metadata[field] = value
	}
	metadata["resourceVersion"] = k.resourceVersion
	status := map[string]any{}
	if k.repair != nil {
		status = rec.status()
	}
	if w.objects != nil && k.objects != w.objects.sum {
		status["objects"] = w.objects.list
		if len(w.objects.list) == 0 {
			status["objects"] = nil
		}
	}
	status["conditions"] = append(slices.Clone(k.others), k.conditions.entries(w.conditions, now)...)
	return map[string]any{"metadata": metadata, "status": status}
}
