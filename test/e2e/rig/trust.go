//go:build integration && linux

package rig

// Trusting is a file of values with which the pods of the repository's charts trust the emulator, for a chart that is not installed by Install. Its
// namespace needs Trust.
func (s *Scenario) Trusting() string {
	s.Helper()
	return s.file(s.trusting())
}

// Trust makes the emulator's authority known in a namespace, as ConfigMap emulator-ca with the file ca.pem.
func (s *Scenario) Trust(namespace string) {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	if err := s.trust(ctx, namespace); err != nil {
		s.Fatalf("making the emulator's authority known in %s: %v", namespace, err)
	}
}

// Values is a file with that text, for helm's --values, that is there until the scenario ends.
func (s *Scenario) Values(text string) string {
	s.Helper()
	return s.file(text)
}
