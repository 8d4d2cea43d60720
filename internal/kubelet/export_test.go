package kubelet

import "time"

// LookEvery is how often a registration looks for its socket.
const LookEvery = lookEvery

// SetAfter gives the registration another clock.
func (r *Registration) SetAfter(after func(time.Duration) <-chan time.Time) { r.after = after }
