package events

import (
	"crypto/sha256"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"keymount/internal/provider"
	"keymount/internal/publish"
)

const (
	// maxTold is how many different failures of one volume and reason are told within quiet.
	maxTold = 3
	// maxToldSecrets is that of its Secrets: each has its own reasons.
	maxToldSecrets = burst
	// A volume may cause burst Events at once and one more each refill, whatever happens to it.
	burst  = 10
	refill = time.Minute
)

// A history is what was told of one volume. It is guarded by Recorder.mu.
type history struct {
	seen     time.Time
	held     bool
	versions *[sha256.Size]byte // of the last success; nil where it is not known
	// told holds what was told lately, by reason and by what failed.
	told map[string]map[string]*told

	left  int // Events that the volume may still cause
	since time.Time
}

// A told is one Event and when it was last told.
type told struct {
	last time.Time
	// What follows is that of the Event in the cluster and belongs to Run.
	name  string
	count int
}

func newHistory() *history {
	return &history{told: map[string]map[string]*told{}, left: burst, since: time.Now()}
}

// failure returns what to tell of a call that failed, nil if that was told lately.
func (h *history) failure(reason string, o *publish.Outcome, now time.Time) *note {
	errs := provider.ErrorsOf(o.Err)
	text := "SecretProviderClass " + o.Volume.Class.Name + ": "
	if o.Held {
		text += "the volume could not be refreshed and holds what it held: "
	}
	return h.note(o.Volume, warning, reason, signature(errs), text+failures(errs), now)
}

// rotation returns what to tell of a success: nothing, unless it changed the content of a volume.
func (h *history) rotation(o *publish.Outcome, now time.Time) *note {
	res := &o.Result
	before := h.versions
	after := sumOf(res.Versions)
	h.versions = &after
	text := "SecretProviderClass " + o.Volume.Class.Name + ": "
	switch {
	case !o.Held:
		return nil
	case res.SelfWritten && (before != nil && *before != after || before == nil && res.NewVersions):
		text += "the versions of its objects changed"
	case res.SelfWritten || res.Change.Empty():
		return nil
	default:
		text += changes(res)
	}
	return h.note(o.Volume, normal, MountRotationComplete, "", text, now)
}

// unfinished returns what to tell of what failed beside the volume itself. That the API server is away is no news that could
// be told to it.
func (h *history) unfinished(o *publish.Outcome, now time.Time) *note {
	var errs provider.Errors
	for _, err := range o.Result.Unfinished {
		if !away(provider.KindOf(err)) {
			errs = append(errs, provider.ErrorsOf(err)...)
		}
	}
	if len(errs) == 0 {
		if len(o.Result.Unfinished) == 0 {
			h.end(MountUnfinished)
		}
		return nil
	}
	return h.note(o.Volume, warning, MountUnfinished, signature(errs), "SecretProviderClass "+o.Volume.Class.Name+": "+failures(errs), now)
}

// away says that the API server is, of what failed there.
func away(k provider.Kind) bool { return k == provider.Unavailable || k == provider.Throttled }

// note returns the Event, or nil if it may not be told now.
func (h *history) note(v *publish.Volume, kind, reason, what, message string, now time.Time) *note {
	most := maxTold
	if ofSecret(reason) {
		most = maxToldSecrets
	}
	t := h.allow(kind, reason, what, most, now)
	if t == nil {
		return nil
	}
	pod := v.Request.Pod
	return &note{namespace: pod.Namespace, pod: pod.Name, uid: pod.UID, kind: kind, reason: reason, message: bounded(message, maxMessage),
		at: now, told: t, id: rand.Uint64()}
}

func (h *history) allow(kind, reason, what string, most int, now time.Time) *told {
	byWhat := h.told[reason]
	if byWhat == nil {
		byWhat = map[string]*told{}
		h.told[reason] = byWhat
	}
	t := byWhat[what]
	switch {
	case t == nil:
		for other, old := range byWhat {
			if now.Sub(old.last) >= quiet {
				delete(byWhat, other)
			}
		}
		if len(byWhat) >= most {
			return nil
		}
		t = &told{}
	case kind == warning && now.Sub(t.last) < quiet:
		return nil
	}
	if n := int(now.Sub(h.since) / refill); n > 0 {
		h.left = min(burst, h.left+n)
		h.since = h.since.Add(time.Duration(n) * refill)
	}
	if h.left == 0 {
		return nil
	}
	h.left--
	t.last = now
	byWhat[what] = t
	return t
}

// end notes that a failure is over, so that the next one is news.
func (h *history) end(reason string) { delete(h.told, reason) }

// signature says what failed, and how; not with which words.
func signature(errs provider.Errors) string {
	parts := make([]string, len(errs))
	for i, e := range errs {
		parts[i] = e.Kind.String() + " " + e.Object
	}
	slices.Sort(parts)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(parts), "\x00")))
	return string(sum[:])
}

func sumOf(versions []provider.ObjectVersion) [sha256.Size]byte {
	parts := make([]string, len(versions))
	for i, v := range versions {
		parts[i] = v.ID + "\x00" + v.Version
	}
	slices.Sort(parts)
	return sha256.Sum256([]byte(strings.Join(parts, "\x00\x00")))
}
