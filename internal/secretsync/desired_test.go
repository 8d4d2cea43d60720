package secretsync

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

func asked() *publish.SecretObject {
	return &publish.SecretObject{Name: "db", Type: "Opaque", Labels: map[string]string{"l": "1"}, Annotations: map[string]string{"a": "1"},
		Data: []publish.SecretKey{{Key: "k", File: "f"}, {Key: "k2", File: "f2"}}}
}

func holding(files map[string]string) files {
	return func(paths []string) (map[string]provider.Contents, error) {
		out := map[string]provider.Contents{}
		for _, path := range paths {
			if text, ok := files[path]; ok {
				out[path] = provider.Contents(text)
			}
		}
		return out, nil
	}
}

// A digest changes with whatever a Secret is to hold, and with nothing else; that of another process is another.
func TestDigest(t *testing.T) {
	syncer := func() *Syncer {
		s, err := New(Config{API: &rest.Config{Host: "127.0.0.1:1"}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := syncer()
	of := func(s *Syncer, change func(*publish.SecretObject, map[string]string)) digest {
		o, files := asked(), map[string]string{"f": "one", "f2": "two"}
		if change != nil {
			change(o, files)
		}
		d, err := build(o, holding(files), nil)
		if err != nil {
			t.Fatal(err)
		}
		return s.digest(d)
	}
	plain := of(s, nil)
	if plain != of(s, nil) {
		t.Error("the same content has two digests")
	}
	if plain == of(syncer(), nil) {
		t.Error("another process has the same digest: whoever sees it could try contents")
	}
	seen := map[digest]string{plain: "nothing"}
	for _, tc := range []struct {
		name   string
		change func(o *publish.SecretObject, files map[string]string)
	}{
		{"name", func(o *publish.SecretObject, _ map[string]string) { o.Name = "db2" }},
		{"type", func(o *publish.SecretObject, _ map[string]string) { o.Type = "x" }},
		{"label", func(o *publish.SecretObject, _ map[string]string) { o.Labels["l"] = "2" }},
		{"another label", func(o *publish.SecretObject, _ map[string]string) { o.Labels["m"] = "1" }},
		{"annotation", func(o *publish.SecretObject, _ map[string]string) { o.Annotations["a"] = "2" }},
		{"label for annotation", func(o *publish.SecretObject, _ map[string]string) { o.Labels["a"], o.Annotations = "1", nil }},
		{"key", func(o *publish.SecretObject, _ map[string]string) { o.Data[0].Key = "k3" }},
		{"content", func(_ *publish.SecretObject, files map[string]string) { files["f"] = "One" }},
		{"contents moved", func(_ *publish.SecretObject, files map[string]string) { files["f"], files["f2"] = "onet", "wo" }},
		{"contents swapped", func(_ *publish.SecretObject, files map[string]string) { files["f"], files["f2"] = "two", "one" }},
	} {
		d := of(s, tc.change)
		if other, ok := seen[d]; ok {
			t.Errorf("a change of %s gives the digest of %s", tc.name, other)
		}
		seen[d] = tc.name
	}
}

// The bounds are those of the API server, and told before it is asked.
func TestBounds(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(o *publish.SecretObject, files map[string]string)
		want   string
	}{
		{"as large as can be", func(_ *publish.SecretObject, files map[string]string) {
			files["f"] = strings.Repeat("x", maxData-len("two"))
		}, ""},
		{"a byte larger", func(_ *publish.SecretObject, files map[string]string) {
			files["f"] = strings.Repeat("x", maxData-len("two")+1)
		}, "larger than the 1048576 bytes"},
		{"many keys", func(o *publish.SecretObject, _ map[string]string) {
			o.Data = nil
			for i := range maxKeys/250 + 1 {
				o.Data = append(o.Data, publish.SecretKey{Key: fmt.Sprintf("%0250d", i), File: "f"})
			}
		}, "names of its keys take more than 65536 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, files := asked(), map[string]string{"f": "one", "f2": "two"}
			tc.change(o, files)
			_, err := build(o, holding(files), nil)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	many := make([]publish.SecretObject, maxSecrets+50)
	for i := range many {
		many[i] = publish.SecretObject{Name: fmt.Sprint(i)}
	}
	if all := unique(many); len(all) != maxSecrets+1 || all[maxSecrets].problem == nil || all[maxSecrets-1].problem != nil {
		t.Errorf("%d Secrets of a class that names %d", len(all), len(many))
	}
	many[1].Name = many[0].Name
	if all := unique(many); len(all) != maxSecrets+1 || all[0].problem == nil || all[1].Name != "2" || all[1].problem != nil {
		t.Errorf("one that is named twice among them: %+v", all[0].problem)
	}
}

// What an author names is shown in one line, and not at any length.
func TestTextsAreBounded(t *testing.T) {
	o := asked()
	o.Data[0].File = strings.Repeat("x\n", 10_000)
	_, err := build(o, holding(nil), nil)
	if err == nil || len(err.Error()) > 300 || strings.Contains(err.Error(), "\n") {
		t.Errorf("told %q", err)
	}
}

// A missing Type is Opaque, which the API server would make of it too.
func TestDefaults(t *testing.T) {
	o := asked()
	o.Type, o.Labels, o.Annotations = "", nil, map[string]string{provider.AnnotationPrefix + "synced": "forged", "a": "1"}
	d, err := build(o, holding(map[string]string{"f": "", "f2": "two"}), nil)
	if err != nil || d.kind != "Opaque" || d.labels[managedLabel] != managed || len(d.annotations) != 1 {
		t.Errorf("got %+v, %v", d, err)
	}
	if content, ok := d.data["k"]; !ok || len(content) != 0 {
		t.Error("an empty file gives an empty key")
	}
	if text := fmt.Sprintf("%v %+v %#v", d, d, d); strings.Contains(text, "two") {
		t.Errorf("it prints as %s", text)
	}
}

func TestNotes(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	task := &task{Syncer: &Syncer{cfg: Config{Now: func() time.Time { return now }}}, class: classState{Class: publish.Class{Namespace: "ns", Name: "c"}, uid: "u", generation: 5}, asOf: now}
	for _, tc := range []struct {
		name string
		note note
		want bool
	}{
		{"none", note{}, false},
		{"of the same time", note{UID: "u", Generation: 5, AsOf: now}, false},
		{"later", note{UID: "u", Generation: 5, AsOf: now.Add(time.Second)}, true},
		{"later, of an earlier class", note{UID: "u", Generation: 4, AsOf: now.Add(time.Second)}, false},
		{"earlier, of a later class", note{UID: "u", Generation: 6, AsOf: now.Add(-lag)}, true},
		{"long ago, of a later class than there is", note{UID: "u", Generation: 1 << 62, AsOf: now.Add(-lag - time.Second)}, false},
		{"later, of another object", note{UID: "v", Generation: 1, AsOf: now.Add(time.Second)}, true},
		{"far ahead, of a class that is said to be later", note{UID: "u", Generation: 1 << 62, AsOf: now.Add(1000 * time.Hour)}, false},
		{"far ahead", note{UID: "u", Generation: 5, AsOf: now.Add(ahead + time.Second)}, false},
	} {
		if got := tc.note.newer(task); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
	n := task.noteOf(&desired{data: map[string]provider.Contents{"k": nil}, labels: map[string]string{managedLabel: "true", "l": ""}})
	if got := parseNote(n.text()); got.Class != "c" || !got.AsOf.Equal(now) || len(got.Labels) != 1 || len(got.Keys) != 1 {
		t.Errorf("written and read: %+v", got)
	}
	for _, text := range []string{"", "{", "[]", `{"keys":1}`, strings.Repeat(" ", maxNote+1)} {
		if got := parseNote(text); got.Class != "" || got.Keys != nil {
			t.Errorf("%.20q is read as %+v", text, got)
		}
	}
}

func TestMissingOwners(t *testing.T) {
	o := func(name string, uid types.UID) owner { return owner{Name: name, UID: uid} }
	got := missing([]owner{o("a", "1"), o("b", "2")}, []owner{o("a", "3"), o("x", "2"), o("c", "4"), o("c", "4")})
	if len(got) != 2 || got[0].UID != "3" || got[1].UID != "4" {
		t.Errorf("got %+v", got)
	}
}

// What is kept of a Secret does not grow with what others write into it.
func TestWhatIsKeptIsBounded(t *testing.T) {
	object := &metav1.ObjectMeta{ResourceVersion: "1", Annotations: map[string]string{Note: strings.Repeat("x", maxNote)}}
	for i := range 10_000 {
		object.OwnerReferences = append(object.OwnerReferences, owner{Name: "theirs", UID: types.UID(fmt.Sprint(i))})
	}
	ours := owner{Name: "web", UID: "of-web"}
	absent := owner{Name: "web", UID: "of-another"}
	object.OwnerReferences = append(object.OwnerReferences, ours)
	task := &task{Syncer: &Syncer{cfg: Config{Now: time.Now}}, owners: []owner{ours, absent}}
	task.learn(object, nil)
	if len(task.seen.owners) != 2 || !task.seen.owners[ours.UID] || task.seen.owners[absent.UID] {
		t.Errorf("kept %v", task.seen.owners)
	}
}
