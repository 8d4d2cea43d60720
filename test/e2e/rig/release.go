//go:build integration && linux

package rig

import (
	"encoding/json"
	"errors"
)

// OnlyRelease uninstalls every release of helm but the named one, so that a phase finds what it prepares and nothing else. It returns when all
// their objects are gone; helm's own --wait was seen to succeed, or to fail, in a second while a DaemonSet's pods still ended.
func (s *Scenario) OnlyRelease(name string) {
	s.Helper()
	var releases []struct{ Name, Namespace string }
	if err := json.Unmarshal([]byte(s.Helm("list", "--all-namespaces", "--output", "json")), &releases); err != nil {
		s.Fatalf("reading helm's list of releases: %v", err)
	}
	for _, r := range releases {
		if r.Name == name {
			continue
		}
		objects := s.file(s.Helm("get", "manifest", r.Name, "--namespace", r.Namespace))
		s.Helm("uninstall", r.Name, "--namespace", r.Namespace, "--cascade", "foreground")
		s.Await("the objects of release "+r.Name+" to be gone", func() error {
			if left := s.Kubectl("get", "--filename", objects, "--namespace", r.Namespace, "--ignore-not-found", "--output", "name"); left != "" {
				return errors.New("there is still " + left)
			}
			return nil
		})
	}
}
