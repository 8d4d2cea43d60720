package secretsync

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keymount/internal/provider"
)

// Note is the annotation of a Secret that says what it was made from, and what of it is ours: a JSON object.
const Note = provider.AnnotationPrefix + "synced"

const (
	// maxNote bounds what is read of a note, in bytes, as the API server bounds annotations.
	maxNote = 256 << 10
	// ahead is how far clocks of nodes may differ. A time further ahead than that is no reason to wait for it to come.
	ahead = time.Minute
	// lag is how long a node may see an earlier state of a class than another one does. What is said to be of a later state for longer than
	// that is not: the class is what this node sees.
	lag = 10 * time.Minute
)

// A note is what Note says; the zero value where it is absent or damaged. Whoever may write the Secret can write it.
type note struct {
	Class      string `json:"class"`
	UID        string `json:"uid"`
	Generation int64  `json:"generation"`
	// AsOf is when the read of the content began, by the clock of the node that did it.
	AsOf time.Time `json:"asOf"`
	Node string    `json:"node,omitempty"`
	// Keys, Labels and Annotations are those that are ours. The label that marks a managed Secret is not listed: it stays.
	Keys        []string `json:"keys"`
	Labels      []string `json:"labels,omitempty"`
	Annotations []string `json:"annotations,omitempty"`
}

func parseNote(text string) (n note) {
	if len(text) > maxNote || json.Unmarshal([]byte(text), &n) != nil {
		return note{}
	}
	return n
}

// noteOf says what a task makes of what is desired.
func (t *task) noteOf(w *desired) note {
	labels := slices.DeleteFunc(slices.Sorted(maps.Keys(w.labels)), func(key string) bool { return key == managedLabel })
	return note{Class: t.class.Name, UID: t.class.uid, Generation: t.class.generation, AsOf: t.asOf.UTC().Truncate(time.Millisecond), Node: t.cfg.NodeID,
		Keys: slices.Sorted(maps.Keys(w.data)), Labels: labels, Annotations: slices.Sorted(maps.Keys(w.annotations))}
}

func (n *note) text() string {
	text, err := json.Marshal(n)
	if err != nil {
		return "" // a time beyond the year 9999: then there is no note
	}
	return string(text)
}

// sumOfNote stands for what an object's note says.
func sumOfNote(object metav1.Object) [sha256.Size]byte {
	return sha256.Sum256([]byte(object.GetAnnotations()[Note]))
}

// newer says whether what the Secret holds was made from a newer state of the class than the task's, or of the source.
func (n *note) newer(t *task) bool {
	switch {
	case n.AsOf.After(t.cfg.Now().Add(ahead)):
		return false
	case n.UID == t.class.uid && n.Generation < t.class.generation:
		return false
	case n.UID == t.class.uid && n.Generation > t.class.generation:
		return !t.asOf.After(n.AsOf.Add(lag))
	}
	return n.AsOf.After(t.asOf)
}
