package podstatus

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/validation"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

// A record is what is remembered of one volume. What is not constant is guarded by Recorder.mu.
type record struct {
	id, class, target string
	pod               provider.Pod
	turn              chan struct{} // held by the one who writes

	// published says that this process has heard of the volume itself; before that, of its Secrets only, and when it last did.
	published bool
	heard     time.Time
	failing   map[string]secretFailure // by the name of the Secret

	// first says that this process saw the volume being made, so that a free name is likely and an object by it is old.
	first bool
	// written says that this process has written the object.
	written bool
	want    want
	changes int // of want
	known   known

	failures int
	retry    time.Time // when to write again; zero if nothing waits
}

// A want is what the object is to say.
type want struct {
	objects    *objects   // nil: what it says already
	conditions conditions // the zero value of each: what it says already
}

// A known is the object as the API server last showed it.
type known struct {
	name            string // "" where none is known
	resourceVersion string
	objects         sum
	conditions      conditions
	others          []any // conditions of other types
	// repair is what of the object's metadata and status does not name this volume, as a patch.
	repair map[string]any
	// succeeded says that a later pod of the same name has the object.
	succeeded bool
}

// says reports whether the object says what is wanted.
func (k *known) says(w want, written, dropsConditions bool) bool {
	switch {
	case k.succeeded:
		return true
	case k.name == "" || k.repair != nil || !k.holds(w.objects, written):
		return false
	}
	return k.conditions.say(w.conditions, dropsConditions)
}

// holds reports whether the object lists these objects. Upstream's driver up to 1.5.6 cut white space off what it wrote.
func (k *known) holds(o *objects, written bool) bool {
	return o == nil || k.objects == o.sum || !written && k.objects == o.trimmed
}

// nameable refuses a volume of which nothing can be written: an object belongs to a pod. Names that none can have have no place in
// the path of a request either.
func nameable(v *publish.Volume) error {
	pod := v.Request.Pod
	e := &provider.Error{Kind: provider.Invalid}
	switch {
	case pod.Namespace == "" || pod.Name == "" || pod.UID == "" || v.Class.Name == "":
		e.Message = fmt.Sprintf("writing the status of volume %s: its pod or class is not known", provider.OneLine(v.ID, maxQuoted))
		e.Remedy = "the CSIDriver object needs podInfoOnMount: true"
	case len(validation.ValidateNamespaceName(pod.Namespace, false)) > 0,
		len(validation.NameIsDNSSubdomain(pod.Name, false)) > 0, len(validation.NameIsDNSSubdomain(v.Class.Name, false)) > 0:
		e.Message = fmt.Sprintf("writing the status of volume %s: its pod or class has no valid name", provider.OneLine(v.ID, maxQuoted))
	default:
		return nil
	}
	return e
}

// record returns what is remembered of the volume. The same id with another pod or class is another volume.
func (r *Recorder) record(v *publish.Volume) *record {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.volumes[v.ID]
	if rec == nil || !rec.of(v) {
		rec = r.begin(v)
	}
	rec.published = true
	return rec
}

// of says whether the record is of this volume, as far as whoever tells of it knows it.
func (rec *record) of(v *publish.Volume) bool {
	pod := v.Request.Pod
	return rec.pod.Namespace == pod.Namespace && rec.pod.Name == pod.Name && rec.pod.UID == pod.UID && rec.class == v.Class.Name && rec.target == v.Target
}

// begin makes a record. r.mu is held.
func (r *Recorder) begin(v *publish.Volume) *record {
	if r.volumes[v.ID] == nil && len(r.volumes) >= maxVolumes {
		r.dropOne()
	}
	rec := &record{id: v.ID, pod: v.Request.Pod, class: v.Class.Name, target: v.Target, turn: make(chan struct{}, 1)}
	r.volumes[v.ID] = rec
	return rec
}

// dropOne makes place; what waits to be written is the last to go. r.mu is held.
func (r *Recorder) dropOne() {
	var victim string
	for id, rec := range r.volumes {
		victim = id
		if rec.retry.IsZero() {
			break
		}
	}
	delete(r.volumes, victim)
}

// write makes the object say what is wanted, or leaves that to Run.
func (r *Recorder) write(ctx context.Context, rec *record) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	select {
	case rec.turn <- struct{}{}:
		defer func() { <-rec.turn }()
	case <-ctx.Done():
		r.postpone(rec)
		return rec.failure(ctx.Err())
	}
	r.mu.Lock()
	a := &attempt{Recorder: r, rec: rec, want: rec.want, known: rec.known, first: rec.first, written: rec.written}
	changes := rec.changes
	r.mu.Unlock()

	err := a.run(ctx)

	r.mu.Lock()
	rec.known, rec.written = a.known, a.written
	r.mu.Unlock()
	if err != nil {
		r.postpone(rec)
		return rec.failure(err)
	}
	r.succeed(rec, changes)
	return nil
}
