package podstatus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

const (
	// gather is how long what came of a volume's Secrets is gathered before it is written, so that one write tells of all of them.
	gather = time.Second
	// idle is how long a volume is remembered of which nothing but its Secrets is heard. The Secrets of one that is there are looked after every
	// few minutes; a try that was under way when its volume was unpublished is told of once.
	idle = time.Hour
	// maxFailing bounds the Secrets of one volume that are known to fail. One beyond that is taken in when it fails again and there is room.
	maxFailing = 64
	// maxSecretName is that of a Secret, in bytes.
	maxSecretName = 253
	// What a condition repeats of one failure, what to do included, and of the names of the other Secrets, in bytes: together less than maxMessage.
	maxFailure, maxRemedy, maxNames = 440, 300, 220
)

var _ publish.SecretObserver = (*Recorder)(nil)

// A secretFailure is why a Secret is not as it should be.
type secretFailure struct {
	kind provider.Kind
	text string
}

// ObserveSecret takes in how a try to sync a Secret of a volume ended: it implements publish.SecretObserver. Run writes what is to be said of
// it, which is something only where Secrets begin or cease to fail.
func (r *Recorder) ObserveSecret(_ context.Context, o publish.SecretOutcome) {
	if nameable(o.Volume) != nil || o.Err != nil && errors.Is(o.Err, context.Canceled) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.volumes[o.Volume.ID]
	switch {
	case rec == nil:
		rec = r.begin(o.Volume)
	case !rec.of(o.Volume):
		return // it comes late, of a volume that had this id before
	}
	rec.heard = time.Now()
	rec.noteSecret(&o)
	before := &rec.want.conditions[synced]
	after := rec.secretsSynced()
	changed := before.status != after.status || before.reason != after.reason
	*before = after // of what is not written yet, the names are the latest
	if !changed {
		return
	}
	rec.changes++
	if rec.retry.IsZero() {
		rec.retry = rec.heard.Add(gather)
		r.wake()
	}
}

func (rec *record) noteSecret(o *publish.SecretOutcome) {
	name := provider.OneLine(o.Secret, maxSecretName) // whoever wrote the class may have written anything
	_, known := rec.failing[name]
	switch {
	case o.Err == nil:
		delete(rec.failing, name)
		return
	case !known && len(rec.failing) >= maxFailing:
		return
	case rec.failing == nil:
		rec.failing = map[string]secretFailure{}
	}
	text := provider.OneLine(o.Err.Message, maxFailure)
	if o.Err.Remedy != "" {
		text += " (" + provider.OneLine(o.Err.Remedy, maxRemedy) + ")"
	}
	rec.failing[name] = secretFailure{kind: o.Err.Kind, text: text}
}

// noteClass takes in what the class of a refreshed volume asks for: where that is no Secret, nobody tells any more that none fails. What came
// of Secrets is else told after the refresh. r.mu is held.
func (rec *record) noteClass(v *publish.Volume) {
	if len(v.Secrets) == 0 {
		rec.failing = nil
		rec.want.conditions[synced] = rec.secretsSynced()
	}
}

// secretsSynced is what is to be said of the volume's Secrets. Of several failures the one that a retry helps least is told in full.
func (rec *record) secretsSynced() condition {
	if len(rec.failing) == 0 {
		return condition{status: "True", reason: "Synced", message: "no Kubernetes Secret that the class asks for fails"}
	}
	names := slices.Sorted(maps.Keys(rec.failing))
	var errs provider.Errors
	for _, name := range names {
		errs = append(errs, &provider.Error{Kind: rec.failing[name].kind})
	}
	kind := provider.KindOf(errs)
	worst := slices.IndexFunc(names, func(name string) bool { return rec.failing[name].kind == kind })
	message := rec.failing[names[worst]].text
	if others := slices.Delete(names, worst, worst+1); len(others) > 0 {
		message += "; not synced either: " + listed(others)
	}
	return condition{status: "False", reason: reasonOf(kind), message: provider.OneLine(message, maxMessage)}
}

// listed names what fits and counts the rest.
func listed(names []string) string {
	out := provider.OneLine(names[0], maxNames)
	for i, name := range names[1:] {
		if len(out)+len(name) > maxNames {
			return out + fmt.Sprintf(" and %d more", len(names)-i-1)
		}
		out += ", " + name
	}
	return out
}

// forgotten says that there is no reason to remember the volume any longer.
func (rec *record) forgotten(now time.Time) bool { return !rec.published && now.Sub(rec.heard) > idle }
