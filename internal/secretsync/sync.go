package secretsync

import (
	"cmp"
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"keymount/internal/pfx"
	"keymount/internal/provider"
	"keymount/internal/publish"
)

// SyncSecrets implements publish.SecretSyncer.
func (s *Syncer) SyncSecrets(ctx context.Context, v *publish.Volume, b *provider.Bundle, asOf time.Time) {
	if len(v.Secrets) == 0 {
		s.part(ctx, v.ID)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	m := s.join(v, asOf, around(s.cfg.EnsureEvery))
	if m == nil {
		m = s.stranger(v, asOf)
	}
	class := classState{Class: v.Class, uid: v.ClassUID, generation: v.ClassGeneration}
	read := filesOf(b)
	if b.SelfWritten {
		read = s.filesAt(v.Target)
	}
	objects := unique(v.Secrets)
	s.excuse(ctx, m, objects)
	s.prune(m.group, objects)
	work := pfx.NewBudget(maxWork)
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, o := range objects {
		group.Go(func() error {
			_ = s.sync(ctx, &job{member: m, class: class, object: o, read: read, work: work, overwrite: true})
			return nil // it has been told
		})
	}
	_ = group.Wait() // nobody returns an error
}

// stranger stands for a volume of which nothing is remembered.
func (s *Syncer) stranger(v *publish.Volume, asOf time.Time) *member {
	g := &group{class: v.Class, members: map[*member]bool{}, secrets: map[string]*secret{}}
	return &member{volume: standIn(v), group: g, asking: make(chan struct{}, 1), asOf: asOf, synced: map[string]digest{}, failing: map[string]failing{}}
}

// filesOf reads from what was fetched.
func filesOf(b *provider.Bundle) files {
	all := make(map[string]provider.Contents, len(b.Files))
	for _, f := range b.Files {
		all[f.Path] = f.Contents
	}
	return func([]string) (map[string]provider.Contents, error) { return all, nil }
}

// filesAt reads what the volume at target holds.
func (s *Syncer) filesAt(target string) files {
	return func(paths []string) (map[string]provider.Contents, error) {
		found, err := s.cfg.Content.Read(target, paths, maxData)
		if err == nil && len(found) == 0 {
			// As of one that is just being emptied. What is wrong with the class is told after each fetch.
			err = &provider.Error{Kind: provider.Unavailable, Message: "the volume holds none of the files"}
		}
		return found, err
	}
}

// An object is one entry of a class, and what is wrong with it because of those before it.
type object struct {
	publish.SecretObject
	problem error
}

// unique marks entries that name a Secret which others name too, of which it keeps the first, and leaves out what is beyond the bound.
func unique(all []publish.SecretObject) []object {
	times := map[string]int{}
	for _, o := range all {
		times[o.Name]++
	}
	out := make([]object, 0, min(len(all), maxSecrets+1))
	seen := map[string]bool{}
	for _, o := range all {
		if seen[o.Name] {
			continue
		}
		seen[o.Name] = true
		one := object{SecretObject: o}
		if len(out) == maxSecrets {
			one.problem = invalid("split the class", "the class names more than %d Secrets", maxSecrets)
			return append(out, one)
		}
		if n := times[o.Name]; n > 1 {
			one.problem = invalid("list all of its keys in one entry", "the class names the Secret %d times", n)
		}
		out = append(out, one)
	}
	return out
}

// A job is one Secret of one volume that is to be synced.
type job struct {
	member    *member
	class     classState
	object    object
	read      files
	work      *pfx.Budget // for all Secrets that are synced with it
	overwrite bool
}

// sync does what is to be done, tells what came of it, and returns why it failed.
func (s *Syncer) sync(ctx context.Context, j *job) error {
	began := s.cfg.Now()
	r := s.attempt(ctx, j)
	switch {
	case r.known, errors.Is(r.err, errGone):
	case r.err == nil:
		s.succeed(ctx, j, &r, s.cfg.Now().Sub(began))
	default:
		s.fail(ctx, j, &r, s.cfg.Now().Sub(began))
	}
	return r.err
}

// A result is what came of an attempt.
type result struct {
	// digest is of what the Secret was to hold; zero where nothing is overwritten.
	digest digest
	// known says that there was nothing to do, which nobody had to be asked for.
	known bool
	task  *task // nil if the Secret was not looked at
	err   error
}

func (s *Syncer) attempt(ctx context.Context, j *job) (r result) {
	if r.err = cmp.Or(j.object.problem, ctx.Err()); r.err != nil {
		return r
	}
	want := func() (*desired, error) { return build(&j.object.SecretObject, j.read, j.work) }
	if j.overwrite {
		var w *desired
		if w, r.err = want(); r.err != nil {
			return r
		}
		r.digest = s.digest(w)
		want = func() (*desired, error) { return w, nil }
	}
	sec, known := s.lookUp(j, r.digest)
	if r.known = known; known {
		return r
	}
	var owners []owner
	if owners, r.err = s.ownersOf(ctx, j.member); r.err != nil {
		return r
	}
	select {
	case sec.turn <- struct{}{}:
		defer func() { <-sec.turn }()
	case <-ctx.Done():
		r.err = ctx.Err()
		return r
	}
	if s.shown(sec, r.digest, owners) {
		return r
	}
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	case <-ctx.Done():
		r.err = ctx.Err()
		return r
	}
	r.task = &task{Syncer: s, class: j.class, name: j.object.Name, asOf: j.asOf(s), owners: owners, want: want, overwrite: j.overwrite}
	r.err = r.task.run(ctx)
	s.note(sec, &r)
	return r
}

func (j *job) asOf(s *Syncer) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return j.member.asOf
}

// lookUp returns what is known of the job's Secret, and whether it holds what it is to hold.
func (s *Syncer) lookUp(j *job, d digest) (sec *secret, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sec = j.member.group.secretOf(j.object.Name)
	_, fails := j.member.failing[j.object.Name]
	return sec, j.overwrite && !fails && !sec.doubted && j.member.synced[j.object.Name] == d
}

// shown says whether the Secret was seen to be as it should be a moment ago, for another volume.
func (s *Syncer) shown(sec *secret, d digest, owners []owner) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sec.doubted || d == (digest{}) || sec.seen.digest != d || s.cfg.Now().Sub(sec.seen.at) > fresh {
		return false
	}
	for _, o := range owners {
		if !sec.seen.owners[o.UID] {
			return false
		}
	}
	return true
}

// note keeps what was seen of a Secret.
func (s *Syncer) note(sec *secret, r *result) {
	if r.err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := sec.seen
	sec.seen = r.task.seen
	switch {
	case r.task.overwrite:
		sec.doubted = false
	case before.resourceVersion == "" || r.task.found.resourceVersion == "" || r.task.found.resourceVersion == before.resourceVersion:
	case r.task.found.note == before.note, r.task.found.asOf.Before(before.asOf):
		sec.doubted = true // what another node writes has another note, and is newer, unless the Secret was made anew or from a backup
	}
}
