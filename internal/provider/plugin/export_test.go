package plugin

import "time"

// SetStop shortens the bound of a graceful stop for a test.
func (s *Server) SetStop(d time.Duration) { s.stop = d }

// CloseIdle is what Run does from time to time.
func (f *Folders) CloseIdle() { f.closeIdle() }

// Connections counts the places that are kept.
func (f *Folders) Connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.places)
}
