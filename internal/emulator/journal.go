package emulator

import (
	"context"
	"slices"
	"sync"
	"time"
)

// maxEntries bounds the log; older entries are dropped. Counts go on.
const maxEntries = 10000

// An Entry is one request of the log. Neither headers nor bodies are kept.
type Entry struct {
	Seq    int       `json:"seq"`
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`
	Method string    `json:"method"`
	Host   string    `json:"host"`
	Path   string    `json:"path"` // with the query
	Proto  string    `json:"proto"`
	App    string    `json:"app,omitempty"`    // client id of the verified caller
	Status int       `json:"status,omitempty"` // 0: not answered yet, or the connection was cut
	Done   bool      `json:"done"`
}

// Counts are numbers of requests by kind.
type Counts map[string]int

// Total is the number of requests of the kinds and groups given, of all when none is given.
func (c Counts) Total(kinds ...string) int {
	n := 0
	for k, v := range c {
		if len(kinds) == 0 || slices.Contains(kinds, k) || slices.Contains(kinds, groupOf(k)) {
			n += v
		}
	}
	return n
}

// journal counts requests when they arrive, before latency and faults, so that hung ones count.
type journal struct {
	mu       sync.Mutex
	seq      int
	counts   Counts
	entries  []*Entry
	inFlight map[string]int // by group
	peak     map[string]int
	changed  chan struct{} // closed and replaced at every arrival and end
}

func (j *journal) init() {
	j.counts, j.inFlight, j.peak = Counts{}, map[string]int{}, map[string]int{}
	j.changed = make(chan struct{})
}

func (j *journal) wake() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// maxLogged bounds the path of an entry, in bytes.
const maxLogged = 1024

func (j *journal) begin(c *call, now time.Time) *Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seq++
	path := c.r.URL.RequestURI()
	e := &Entry{Seq: j.seq, Time: now, Kind: c.kind, Method: c.r.Method, Host: c.host, Path: path[:min(len(path), maxLogged)], Proto: c.r.Proto}
	j.counts[c.kind]++
	j.entries = append(j.entries, e)
	if over := len(j.entries) - maxEntries; over > 0 {
		j.entries = slices.Delete(j.entries, 0, over+maxEntries/10)
	}
	g := c.group()
	j.inFlight[g]++
	j.peak[g] = max(j.peak[g], j.inFlight[g])
	j.wake()
	return e
}

func (j *journal) end(e *Entry, status int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.Status, e.Done = status, true
	j.inFlight[groupOf(e.Kind)]--
	j.wake()
}

func (j *journal) caller(e *Entry, appID string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.App = appID
}

// Requests returns the counts since the start or the last ResetRequests.
func (s *Server) Requests() Counts {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	all := Counts{}
	for k, v := range s.journal.counts {
		all[k] = v
	}
	return all
}

// Log returns the last requests, oldest first, at most 10,000.
func (s *Server) Log() []Entry {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	all := make([]Entry, 0, len(s.journal.entries))
	for _, e := range s.journal.entries {
		all = append(all, *e)
	}
	return all
}

// MaxInFlight is the largest number of requests of a group that were being answered at the same moment.
func (s *Server) MaxInFlight(group string) int {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	return s.journal.peak[group]
}

// ResetRequests sets counts and log to nothing. Requests in flight stay counted as in flight.
func (s *Server) ResetRequests() {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	s.journal.counts, s.journal.entries = Counts{}, nil
	s.journal.peak = map[string]int{}
	for g, n := range s.journal.inFlight {
		s.journal.peak[g] = n
	}
}

// Await returns when at least n requests of a kind or group ("" for all) have arrived since the last ResetRequests, or with the context's error. With a hang fault it
// makes "all of them are waiting at the vault" a fact instead of a sleep.
func (s *Server) Await(ctx context.Context, kind string, n int) error {
	for {
		s.journal.mu.Lock()
		have, changed := 0, s.journal.changed
		if kind == "" {
			have = s.journal.counts.Total()
		} else {
			have = s.journal.counts.Total(kind)
		}
		s.journal.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
