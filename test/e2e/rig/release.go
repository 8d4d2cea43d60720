//go:build integration && linux

package rig

import "encoding/json"

// OnlyRelease uninstalls every release of helm but the named one, so that a phase finds what it prepares and nothing else.
func (s *Scenario) OnlyRelease(name string) {
	s.Helper()
	var releases []struct{ Name, Namespace string }
	if err := json.Unmarshal([]byte(s.Helm("list", "--all-namespaces", "--output", "json")), &releases); err != nil {
		s.Fatalf("reading helm's list of releases: %v", err)
	}
	for _, r := range releases {
		if r.Name != name {
			s.Helm("uninstall", r.Name, "--namespace", r.Namespace, "--wait", "--cascade", "foreground", "--timeout", "2m")
		}
	}
}
