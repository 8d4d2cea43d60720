package secretsync

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"keymount/internal/publish"
)

// A member is one volume whose class asks for Secrets. What may change is guarded by Syncer.mu.
type member struct {
	volume *publish.Volume // its ID, Target, Provider, Class and Request.Pod
	group  *group
	// class is what its content was fetched for; without a uid where that is not known, after a restart.
	class classState
	// asOf is when what the volume holds began to be read.
	asOf time.Time
	// owners are those of its pod; none means that nobody has asked yet.
	owners []owner
	// asking is held by the one who asks, of those who sync one Secret each.
	asking chan struct{}
	// synced are the digests of what each Secret was last seen to hold of this volume. Volumes of one class may differ, by what their pods say:
	// each syncs what changed for itself, so that they do not overwrite one another's for ever.
	synced map[string]digest
	// failing are the Secrets whose last try for this volume failed.
	failing map[string]failing
}

// A failing says what kind of try failed: one that is over when the Secret is there, or when it holds what it is to hold.
type failing struct {
	overwrite bool
	lasting   bool // no further try mends it, but another class or content
}

// A group is the volumes of one class.
type group struct {
	class   publish.Class
	members map[*member]bool
	secrets map[string]*secret // by name
	// due is when its Secrets are looked after.
	due time.Time
}

// A secret is what is known of one Secret. What is not constant is guarded by Syncer.mu.
type secret struct {
	name string
	turn chan struct{} // held by the one who works on it
	seen seen
	// doubted says that somebody else has changed it since it was seen: the next fetch looks at its content.
	doubted bool
	retry   retry
}

// A seen is what the API server last showed of a Secret.
type seen struct {
	at     time.Time
	digest digest // of what it was seen to hold; zero where that is not known
	// owners are the uids of those that it has and was to have. What others added is not kept, of which there may be a megabyte.
	owners          map[types.UID]bool
	resourceVersion string
	asOf            time.Time // of its note
	// note is the sum of its note, whose text may be a quarter of one.
	note [sha256.Size]byte
}

// A retry is a try that failed and is to be repeated.
type retry struct {
	failures  int
	at        time.Time // zero if none is to be
	overwrite bool
}

// join returns the member that stands for a volume. The same id with another pod, class or provider is another volume. It returns nil where there is
// no room for more.
func (s *Syncer) join(v *publish.Volume, asOf time.Time, firstLook time.Duration) *member {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.volumes[v.ID]
	if m != nil && (!samePod(m.volume, v) || m.volume.Class != v.Class || m.volume.Target != v.Target || m.volume.Provider != v.Provider) {
		s.leave(m)
		m = nil
	}
	if m == nil {
		if len(s.volumes) >= maxVolumes {
			if !s.full {
				s.full = true
				s.cfg.Log.Warn("too many volumes to look after their Kubernetes Secrets; those of further volumes are made once", "limit", maxVolumes)
			}
			return nil
		}
		m = &member{volume: standIn(v), asking: make(chan struct{}, 1), synced: map[string]digest{}, failing: map[string]failing{}}
		s.volumes[v.ID] = m
		m.group = s.groupOf(v.Class, firstLook)
		m.group.members[m] = true
	}
	m.asOf = asOf
	m.class = classState{Class: v.Class, uid: v.ClassUID, generation: v.ClassGeneration}
	return m
}

// samePod compares what a pod goes by. Its service account is not known of one that was mounted before a restart.
func samePod(a, b *publish.Volume) bool {
	p, q := a.Request.Pod, b.Request.Pod
	return p.Namespace == q.Namespace && p.Name == q.Name && p.UID == q.UID
}

// standIn is as much of a volume as observers need, without its tokens and secrets.
func standIn(v *publish.Volume) *publish.Volume {
	out := &publish.Volume{ID: v.ID, Target: v.Target, Provider: v.Provider, Class: v.Class}
	out.Request.Pod = v.Request.Pod
	return out
}

// groupOf returns the group of a class. s.mu is held.
func (s *Syncer) groupOf(class publish.Class, firstLook time.Duration) *group {
	g := s.groups[class]
	if g == nil {
		g = &group{class: class, members: map[*member]bool{}, secrets: map[string]*secret{}, due: s.cfg.Now().Add(firstLook)}
		s.groups[class] = g
		s.wake()
	}
	return g
}

// leave forgets a volume. s.mu is held.
func (s *Syncer) leave(m *member) {
	delete(s.volumes, m.volume.ID)
	delete(m.group.members, m)
	if len(m.group.members) == 0 {
		delete(s.groups, m.group.class)
	}
	s.full = false
}

// secretOf returns what is known of a Secret. s.mu is held.
func (g *group) secretOf(name string) *secret {
	sec := g.secrets[name]
	if sec == nil {
		sec = &secret{name: name, turn: make(chan struct{}, 1)}
		g.secrets[name] = sec
	}
	return sec
}

// TakeOver has the Secrets of a volume looked after that was mounted before this process began, as of its last success. Nothing is fetched
// for it as long as it is not due.
func (s *Syncer) TakeOver(v *publish.Volume, asOf time.Time) {
	s.join(v, asOf, rand.N(s.cfg.EnsureEvery)) // the nodes of a cluster are updated one after the other, their volumes are not
}

// Observe forgets volumes that were unpublished: it implements publish.Observer.
func (s *Syncer) Observe(_ context.Context, o publish.Outcome) {
	if o.Operation == publish.Unpublishing && o.Err == nil {
		s.forget(o.Volume.ID)
	}
}

func (s *Syncer) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.volumes[id]; m != nil {
		s.leave(m)
	}
}

// wake tells Run to look anew at what is due.
func (s *Syncer) wake() {
	select {
	case s.due <- struct{}{}:
	default:
	}
}

// around is a time about d from now, so that what began together does not stay together.
func around(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }
