package kubelet

import (
	"slices"
	"sync"
)

// A Condition is one of the things that make the daemon ready.
type Condition string

// The conditions. The API server is none of them: while it is away, volumes that need nothing from it are still served.
const (
	LockHeld   Condition = "lock"       // the lock on the state folder: no other driver works on this node's volumes
	Serving    Condition = "csi-socket" // the CSI socket answers
	Registered Condition = "registered" // kubelet has taken the driver in
)

// A Check is a condition as it is now.
type Check struct {
	Condition Condition
	Met       bool
	Text      string // one line for people
}

// A Readiness keeps the conditions that the daemon must meet. It may be used from any number of goroutines.
type Readiness struct {
	mu     sync.Mutex
	checks []Check // the conditions that count, in their order
}

// NewReadiness returns one that is ready once all of conditions are met. None is at first.
func NewReadiness(conditions ...Condition) *Readiness {
	r := &Readiness{}
	for _, c := range conditions {
		r.checks = append(r.checks, Check{Condition: c, Text: "starting"})
	}
	return r
}

// Met says that a condition is met, with a line for people. A condition that was not given to NewReadiness does not count.
func (r *Readiness) Met(c Condition, text string) { r.set(Check{c, true, text}) }

// Unmet says that a condition is not met (any more), and why.
func (r *Readiness) Unmet(c Condition, why string) { r.set(Check{c, false, why}) }

func (r *Readiness) set(check Check) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.IndexFunc(r.checks, func(c Check) bool { return c.Condition == check.Condition }); i >= 0 {
		r.checks[i] = check
	}
}

// Checks returns all conditions that count, and whether they are met.
func (r *Readiness) Checks() (checks []Check, ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	unmet := func(c Check) bool { return !c.Met }
	return slices.Clone(r.checks), !slices.ContainsFunc(r.checks, unmet)
}
