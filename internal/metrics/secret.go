package metrics

import (
	"context"
	"hash/maphash"
	"maps"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keymount/internal/publish"
	"keymount/internal/scrape"
)

const (
	// maxFailing bounds the failures that are remembered, far above what a node has.
	maxFailing = 10_000
	// A try may be under way when its volume is unpublished, and be told of late. One that had begun by then, give or take margin, counts for nothing;
	// none takes as long as lateWithin. maxGone bounds the volumes of which that is remembered.
	lateWithin, margin = time.Minute, time.Second
	maxGone            = 1000
)

var _ publish.SecretObserver = (*Metrics)(nil)

// secrets are about Kubernetes Secrets that are made of what volumes hold.
type secrets struct {
	total    *prometheus.CounterVec
	failures *prometheus.CounterVec

	seed maphash.Seed
	mu   sync.Mutex
	// failing are the failures that last, by volume id, and by a hash of the Secret's name, which a class may make as long as it likes.
	failing map[string]map[uint64]string // the values are labels of providers
	count   int                          // of them
	gone    map[string]time.Time         // when volumes were unpublished, by their id
	// known are the labels of providers whose volumes had Secrets synced, so that a gauge falls to 0 and does not vanish.
	known map[string]bool
}

func newSecrets() *secrets {
	return &secrets{
		total: scrape.Counter("secret_syncs_total", "Tries to sync a Kubernetes Secret for a volume, by what came of them; those that needed no request do not count.",
			"provider", "result"),
		failures: scrape.Counter("secret_sync_failures_total", "Tries to sync a Kubernetes Secret that failed, by the kind of failure.", "provider", "kind"),
		seed:     maphash.MakeSeed(), failing: map[string]map[uint64]string{}, gone: map[string]time.Time{}, known: map[string]bool{},
	}
}

func (s *secrets) all() []prometheus.Collector { return []prometheus.Collector{s.total, s.failures} }

// ObserveSecret implements publish.SecretObserver.
func (m *Metrics) ObserveSecret(_ context.Context, o publish.SecretOutcome) {
	from := m.providerLabel(o.Volume.Provider)
	m.upstream.observeSecret(o, from)
	if o.Asked || o.Err != nil {
		m.secrets.total.WithLabelValues(from, secretResultOf(o)).Inc()
	}
	if o.Err != nil {
		m.secrets.failures.WithLabelValues(from, o.Err.Kind.String()).Inc()
	}
	m.secrets.note(o, from, m.cfg.Now())
}

// observeSecret counts what asked the API server.
func (u upstream) observeSecret(o publish.SecretOutcome, from string) {
	const system = runtime.GOOS
	if !o.Asked {
		return
	}
	if o.Err == nil {
		u.sync.WithLabelValues(from, system).Inc()
	}
	u.syncDuration.WithLabelValues(system).Observe(o.Took.Seconds())
}

func secretResultOf(o publish.SecretOutcome) string {
	switch {
	case o.Err != nil:
		return "failed"
	case o.Action == publish.SecretCreated:
		return "created"
	case o.Action == publish.SecretUpdated:
		return "updated"
	case o.Action == publish.SecretOwned:
		return "owned"
	}
	return "unchanged"
}

// note remembers whether a Secret fails for a volume.
func (s *secrets) note(o publish.SecretOutcome, from string, now time.Time) {
	id, secret := o.Volume.ID, maphash.String(s.seed, o.Secret)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[from] = true
	s.drop(id, secret)
	left, gone := s.gone[id]
	late := gone && now.Add(-o.Took-margin).Before(left)
	if late || o.Err == nil || s.count >= maxFailing {
		return
	}
	if s.failing[id] == nil {
		s.failing[id] = map[uint64]string{}
	}
	s.failing[id][secret] = from
	s.count++
}

// drop forgets a failure. s.mu is held.
func (s *secrets) drop(id string, secret uint64) {
	if _, ok := s.failing[id][secret]; !ok {
		return
	}
	s.count--
	if delete(s.failing[id], secret); len(s.failing[id]) == 0 {
		delete(s.failing, id)
	}
}

// forget forgets the failures of a volume that is gone.
func (s *secrets) forget(id string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count -= len(s.failing[id])
	delete(s.failing, id)
	if len(s.gone) >= maxGone {
		maps.DeleteFunc(s.gone, func(_ string, left time.Time) bool { return now.Sub(left) > lateWithin })
	}
	if len(s.gone) < maxGone {
		s.gone[id] = now
	}
}

// outOfSync counts the failures that last, by the label of the provider.
func (s *secrets) outOfSync() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := map[string]int{}
	for label := range s.known {
		count[label] = 0
	}
	for _, ofVolume := range s.failing {
		for _, label := range ofVolume {
			count[label]++
		}
	}
	return count
}
