package secretsync

import (
	"context"
	"errors"
	"slices"
	"time"

	"keymount/internal/publish"
)

// succeed books a try that succeeded, and tells it: for the job's volume, and for those of the same class that waited for the same.
func (s *Syncer) succeed(ctx context.Context, j *job, r *result, took time.Duration) {
	name := j.object.Name
	o := publish.SecretOutcome{Volume: j.member.volume, Secret: name, Asked: r.task != nil, Took: took}
	overtaken, unsure, recovered := false, false, []*member{}
	if r.task != nil {
		o.Action, overtaken, unsure = r.task.action, r.task.overtaken, r.task.adopted
	}
	fulfilled := j.overwrite || o.Action == publish.SecretCreated // else it is known only that the Secret is there
	s.mu.Lock()
	g := j.member.group
	sec := g.secretOf(name)
	if j.overwrite && !overtaken {
		j.member.synced[name] = r.digest
	}
	waiting := false // those whose content is newer, and was not written
	for m := range g.members {
		unsure = unsure || m.owners == nil // its pod could not be asked
		f, fails := m.failing[name]
		switch {
		case !fails || m == j.member || f.lasting:
		case fulfilled && !m.asOf.After(j.member.asOf), !f.overwrite:
			delete(m.failing, name)
			recovered = append(recovered, m)
		default:
			waiting = true
		}
	}
	switch {
	case !waiting && (fulfilled || !sec.retry.overwrite):
		sec.retry = retry{}
	case waiting:
		s.postpone(sec, true)
	}
	// That the Secret is there says nothing about an update that failed.
	outstanding := j.member.failing[name].overwrite && !fulfilled
	if !outstanding {
		delete(j.member.failing, name)
	}
	if unsure {
		s.lookSoon(g)
	}
	s.mu.Unlock()
	if !outstanding {
		s.cfg.Observer.ObserveSecret(ctx, o)
	}
	for _, m := range recovered {
		s.cfg.Observer.ObserveSecret(ctx, publish.SecretOutcome{Volume: m.volume, Secret: name})
	}
}

// lookSoon has the group's Secrets looked after a little later. s.mu is held.
func (s *Syncer) lookSoon(g *group) {
	if at := s.cfg.Now().Add(around(soon)); at.Before(g.due) {
		g.due = at
		s.wake()
	}
}

// fail books a try that failed, and tells it. A call that was broken off says nothing about the Secret, and is made up for.
func (s *Syncer) fail(ctx context.Context, j *job, r *result, took time.Duration) {
	name := j.object.Name
	final := lasting(r.err)
	s.mu.Lock()
	j.member.failing[name] = failing{overwrite: j.overwrite || j.member.failing[name].overwrite, lasting: final}
	sec := j.member.group.secretOf(name)
	if !final {
		s.postpone(sec, j.overwrite)
	}
	exists := sec.seen.resourceVersion != "" // as far as anybody can tell, if the API server does not
	s.mu.Unlock()
	if r.task != nil && r.task.looked {
		exists = r.task.exists
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	s.cfg.Observer.ObserveSecret(ctx, publish.SecretOutcome{Volume: j.member.volume, Secret: name, Asked: r.task != nil, Took: took,
		Err: s.failure(j.class, name, r.err), Exists: exists})
}

// postpone notes when a try that failed is repeated. A time that is planned stands: a volume that is refreshed often fails often while the
// API server is away. s.mu is held.
func (s *Syncer) postpone(sec *secret, overwrite bool) {
	sec.retry.overwrite = sec.retry.overwrite || overwrite
	if sec.retry.at.After(s.cfg.Now()) {
		return
	}
	wait := s.cfg.LastRetry
	if sec.retry.failures < 16 {
		wait = min(wait, s.cfg.FirstRetry<<sec.retry.failures)
	}
	sec.retry.failures++
	sec.retry.at = s.cfg.Now().Add(around(wait))
	s.wake()
}

// part forgets a volume whose class asks for no Secrets any more.
func (s *Syncer) part(ctx context.Context, id string) {
	s.mu.Lock()
	m := s.volumes[id]
	s.mu.Unlock()
	if m != nil {
		s.excuse(ctx, m, nil)
		s.forget(id)
	}
}

// excuse ends the failures of Secrets that the class does not name any more: nobody misses them.
func (s *Syncer) excuse(ctx context.Context, m *member, objects []object) {
	var over []string
	s.mu.Lock()
	for name := range m.failing {
		if !slices.ContainsFunc(objects, func(o object) bool { return o.Name == name }) {
			delete(m.failing, name)
			over = append(over, name)
		}
	}
	s.mu.Unlock()
	for _, name := range over {
		s.cfg.Observer.ObserveSecret(ctx, publish.SecretOutcome{Volume: m.volume, Secret: name})
	}
}
