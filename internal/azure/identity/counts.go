package identity

import "sync/atomic"

// A Counter is a Source that counts the access tokens which it asked for.
type Counter interface {
	Source
	Counts() Counts
}

// Counts are fetches of access tokens since the Source was made, one per fetch however many tries it took.
type Counts struct{ Fetched, Failed uint64 }

var (
	_ Counter = (*FromRequest)(nil)
	_ Counter = (*DefaultChain)(nil)
)

// Counts implements Counter.
func (s *FromRequest) Counts() Counts { return s.tokens.counts.read() }

// Counts implements Counter.
func (s *DefaultChain) Counts() Counts { return s.tokens.counts.read() }

type counts struct{ fetched, failed atomic.Uint64 }

func (c *counts) add(err error) {
	if err != nil {
		c.failed.Add(1)
		return
	}
	c.fetched.Add(1)
}

func (c *counts) read() Counts { return Counts{Fetched: c.fetched.Load(), Failed: c.failed.Load()} }
