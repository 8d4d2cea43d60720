package plugin

import "time"

// SetStop shortens the bound of a graceful stop for a test.
func (s *Server) SetStop(d time.Duration) { s.stop = d }
