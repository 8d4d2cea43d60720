package serviceaccount

// Kept returns how many answers are kept.
func (r *Reader) Kept() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.kept)
}
