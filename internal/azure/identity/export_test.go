package identity

// TakeProofOutOfKeys leaves in every key only what anybody can name, so that a test can show what the proof is good for.
func (s *FromRequest) TakeProofOutOfKeys() { s.keys.nameOnly = true }
