package classes

import "time"

// How many changes of the annotation Refresh are heeded at once, and how long it takes until there is one more. Each has every volume of the class
// read again and shares nothing with reads before it, so whoever may write a class could have the vault asked all the time, whatever the
// operator's least interval is.
const (
	wishesAtOnce = 5
	wishEvery    = 30 * time.Second
)

// A wish is what a class in use says by the annotation Refresh, and what of it is heeded. It outlives the states that are told of the class, so
// that removing a class and making it again gains nobody anything. Its fields are guarded by Classes.mu.
type wish struct {
	told string // the value that the class has
	// What is heeded, as Class has it.
	value   string
	seen    time.Time
	changed bool
	// free is when all changes that were heeded are paid for, each by wishEvery; zero until something is told.
	free time.Time
}

// hear takes in a state of the class that was read just now, and makes it say what is heeded.
func (w *wish) hear(class *Class) {
	w.told = class.Refresh
	if w.free.IsZero() {
		w.value, w.seen, w.free = class.Refresh, class.RefreshSeen, class.RefreshSeen
	}
	w.settle(class.RefreshSeen)
	w.put(class)
}

// settle heeds what was told last, if that is news and its turn has come. The last of many changes is so heeded in the end.
func (w *wish) settle(now time.Time) (news bool) {
	if w.told == w.value {
		return false
	}
	if w.free.Before(now) {
		w.free = now
	}
	if w.free.Sub(now) > (wishesAtOnce-1)*wishEvery {
		return false
	}
	w.free = w.free.Add(wishEvery)
	w.value, w.seen, w.changed = w.told, now, true
	return true
}

func (w *wish) put(class *Class) {
	class.Refresh, class.RefreshSeen, class.RefreshChanged = w.value, w.seen, w.changed
}
