//go:build integration && linux

package rig

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// restarts remembers every container that has restarted, whatever became of its pod.
type restarts struct {
	begin time.Time // of the run

	mu       sync.Mutex
	before   map[string]int32  // namespace/pod/container -> restarts before the run, on a cluster that was kept
	seen     map[string]string // namespace/pod/container -> how it ended, and how often
	declared []*declaration
}

// A declaration is what a scenario expects that would otherwise fail the suite.
type declaration struct {
	by    string
	texts []string
	used  bool
}

func (d *declaration) matches(line string) bool {
	return !slices.ContainsFunc(d.texts, func(text string) bool { return !strings.Contains(line, text) })
}

func newRestarts() *restarts {
	return &restarts{begin: time.Now(), before: map[string]int32{}, seen: map[string]string{}}
}

func (r *restarts) see(p *pod) {
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if r.old(p, c.Name, c.RestartCount) || c.RestartCount == 0 {
			continue
		}
		how := fmt.Sprintf("%d times", c.RestartCount)
		if e := c.LastTerminationState.Terminated; e != nil {
			how += fmt.Sprintf(", the last time after %s, exit code %d", e.Reason, e.ExitCode)
		}
		r.mu.Lock()
		r.seen[p.Namespace+"/"+p.Name+"/"+c.Name] = how
		r.mu.Unlock()
	}
}

// old says whether a container of a pod that was there before the run has not restarted since the run first saw it.
func (r *restarts) old(p *pod, container string, count int32) bool {
	if !p.CreationTimestamp.Time.Before(r.begin) {
		return false
	}
	name := p.Namespace + "/" + p.Name + "/" + container
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.before[name]; !known {
		r.before[name] = count
	}
	return count <= r.before[name]
}

// ExpectRestart declares that a container restarts whose namespace/pod/container contains all the texts.
func (s *Scenario) ExpectRestart(texts ...string) {
	s.restarts.mu.Lock()
	defer s.restarts.mu.Unlock()
	s.restarts.declared = append(s.restarts.declared, &declaration{by: s.Name(), texts: texts})
}

func (r *restarts) check(t *testing.T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, how := range r.seen {
		expected := false
		for _, d := range r.declared {
			if d.matches(name) {
				d.used, expected = true, true
			}
		}
		if !expected {
			t.Errorf("container %s has restarted %s, which no scenario declared", name, how)
		}
	}
	unused(t, "restart of a container", r.declared)
}

// unused fails for what was declared and did not happen: the declaration is wrong, or the scenario does not do what it says.
func unused(t *testing.T, what string, declared []*declaration) {
	for _, d := range declared {
		if !d.used {
			t.Errorf("%s declared a %s with %q, and there was none", d.by, what, d.texts)
		}
	}
}
