package secretsync

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"keymount/internal/classes"
	"keymount/internal/pfx"
	"keymount/internal/provider"
	"keymount/internal/publish"
)

// Run looks after the Secrets of all volumes, and repeats what failed, until ctx is done. It returns nil.
func (s *Syncer) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.due:
		case <-timer.C:
		}
		work, wait := s.next()
		for ; work != nil && ctx.Err() == nil; work, wait = s.next() {
			work(ctx)
		}
		timer.Reset(wait)
	}
}

// next returns something that is due, or how long there is nothing.
func (s *Syncer) next() (work func(context.Context), wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wait := s.cfg.Now(), time.Hour
	for _, g := range s.groups {
		if !g.due.After(now) {
			g.due = now.Add(around(s.cfg.EnsureEvery))
			return func(ctx context.Context) { s.ensure(ctx, g) }, 0
		}
		wait = min(wait, g.due.Sub(now))
		for _, sec := range g.secrets {
			switch at := sec.retry.at; {
			case at.IsZero():
			case at.After(now):
				wait = min(wait, at.Sub(now))
			default:
				sec.retry.at = time.Time{}
				return func(ctx context.Context) { s.again(ctx, g, sec) }, 0
			}
		}
	}
	return nil, wait
}

// ensure sees to it that the Secrets of a group are there and have its owners. A class that is gone asks for nothing.
func (s *Syncer) ensure(ctx context.Context, g *group) {
	class, err := s.cfg.Classes.Get(ctx, g.class.Namespace, g.class.Name)
	if err != nil {
		return // those who mount it are told; it is looked at again
	}
	objects := unique(class.Secrets)
	s.prune(g, objects)
	hung := false // then each further request would only wait, and others behind it
	newest := s.newest(g, func(m *member) bool {
		if hung {
			return false
		}
		within, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		_, err := s.ownersOf(within, m)
		hung = errors.Is(err, context.DeadlineExceeded)
		return err == nil
	})
	if newest == nil {
		return
	}
	work := pfx.NewBudget(maxWork)
	for _, o := range objects {
		if hung || ctx.Err() != nil {
			return // what has failed is tried again by itself, the rest is looked at again
		}
		err := s.take(ctx, &job{member: newest, object: o, class: s.stateOf(newest, class), read: s.filesAt(newest.volume.Target), work: work})
		hung = errors.Is(err, context.DeadlineExceeded)
	}
}

// again repeats a try that failed.
func (s *Syncer) again(ctx context.Context, g *group, sec *secret) {
	class, err := s.cfg.Classes.Get(ctx, g.class.Namespace, g.class.Name)
	if kind := provider.KindOf(err); err != nil && kind != provider.NotFound && kind != provider.Invalid {
		s.mu.Lock()
		s.postpone(sec, false)
		s.mu.Unlock()
		return
	}
	var objects []object
	if err == nil {
		objects = unique(class.Secrets)
	}
	i := slices.IndexFunc(objects, func(o object) bool { return o.Name == sec.name })
	if i < 0 {
		s.drop(ctx, g, sec.name)
		return
	}
	m := s.newest(g, func(m *member) bool { return s.waits(m, sec.name) })
	s.mu.Lock()
	overwrite := sec.retry.overwrite
	if m == nil { // who needed it is gone
		sec.retry = retry{}
	}
	s.mu.Unlock()
	if m == nil {
		return
	}
	err = s.take(ctx, &job{member: m, object: objects[i], class: s.stateOf(m, class), read: s.filesAt(m.volume.Target), work: pfx.NewBudget(maxWork), overwrite: overwrite})
	if errors.Is(err, errGone) { // others may wait
		s.mu.Lock()
		delete(m.failing, sec.name)
		s.postpone(sec, overwrite)
		s.mu.Unlock()
	}
}

// take gives a job its time.
func (s *Syncer) take(ctx context.Context, j *job) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return s.sync(ctx, j)
}

// waits says whether a member's last try failed in a way that another may mend.
func (s *Syncer) waits(m *member, name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, fails := m.failing[name]
	return fails && !f.lasting
}

// drop gives up a Secret that nobody asks for any more.
func (s *Syncer) drop(ctx context.Context, g *group, name string) {
	s.mu.Lock()
	delete(g.secrets, name)
	var told []*member
	for m := range g.members {
		delete(m.synced, name)
		if _, fails := m.failing[name]; fails {
			delete(m.failing, name)
			told = append(told, m)
		}
	}
	s.mu.Unlock()
	for _, m := range told {
		s.cfg.Observer.ObserveSecret(ctx, publish.SecretOutcome{Volume: m.volume, Secret: name})
	}
}

// prune forgets Secrets that the class does not name any more. One that failed is dropped when it is tried again.
func (s *Syncer) prune(g *group, objects []object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, sec := range g.secrets {
		named := slices.ContainsFunc(objects, func(o object) bool { return o.Name == name })
		if !named && sec.retry == (retry{}) {
			delete(g.secrets, name)
			for m := range g.members {
				delete(m.synced, name)
			}
		}
	}
}

// newest returns the volume whose content was read last, of those that will do. All are asked, from the newest on.
func (s *Syncer) newest(g *group, will func(*member) bool) (found *member) {
	s.mu.Lock()
	members := make([]*member, 0, len(g.members))
	asOf := map[*member]time.Time{}
	for m := range g.members {
		members = append(members, m)
		asOf[m] = m.asOf
	}
	s.mu.Unlock()
	slices.SortFunc(members, func(a, b *member) int {
		return cmp.Or(asOf[b].Compare(asOf[a]), cmp.Compare(a.volume.ID, b.volume.ID))
	})
	for _, m := range members {
		if will(m) && found == nil {
			found = m
		}
	}
	return found
}

// stateOf returns the state of the class for which a member's content was fetched: what is made of it must not pass for newer.
func (s *Syncer) stateOf(m *member, now *classes.Class) classState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.class.uid != "" {
		return m.class
	}
	return classState{Class: m.group.class, uid: now.UID, generation: now.Generation}
}
