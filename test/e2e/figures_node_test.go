//go:build integration && linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"keymount/internal/benchdoc"
	"keymount/internal/emulator"
	"keymount/test/e2e/rig"
)

// ManyPods is a node that starts many pods of one class at the same moment, what it costs to keep them fresh, and its memory.
func (f figures) ManyPods(s *rig.Scenario) {
	driver := figuresDriver(s)
	empty := driver.Memory(time.Now())
	for i := range figuresSecrets {
		s.PutSecret(secretName(i), "first")
	}
	secretsClass(s, "web", s.Vault, s.ClientID, figuresSecrets, "")

	spent, before, begin := spending(s, driver), mounting(driver), time.Now()
	s.Apply(fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:`, figuresPods) + strings.ReplaceAll(podSpec("web"), "\n", "\n    "))
	pods := s.AllReady(figuresPods)
	took, after := time.Since(begin), mounting(driver)
	if n := after.count - before.count; n != figuresPods {
		s.Errorf("there were %d first mounts, want %d", n, figuresPods)
	}
	start := spent()
	start.limit(s, "the start of all pods", cost{vault: figuresSecrets*windows(s, begin) + 2, reads: figuresPods, writes: figuresPods, watches: 1})
	f.work(s, fmt.Sprintf("%d pods at once, each with a volume of the same %d secrets", figuresPods, figuresSecrets),
		seconds(took), benchdoc.Milliseconds((after.took-before.took)/figuresPods)+" each", "1,200 requests; 50 to the API server, and a watch of every class", start)

	// First the annotation: after it all clocks are at their beginning, and the interval is waited for in full.
	f.change(s, driver, pods, "after the annotation `keymount.dev/refresh`", "second", "not there", func() {
		s.Annotate("secrets-store.csi.x-k8s.io/v1/SecretProviderClass", "web", "keymount.dev/refresh", "now")
	})
	f.change(s, driver, pods, fmt.Sprintf("at an interval of %s", figuresInterval), "third", "1,200 requests and 100 to the API server, each 75 s, changed or not", func() {})
	f.memory(s, 0, empty)
	f.memory(s, figuresPods, driver.Memory(begin.Add(took)))
}

// change changes a secret and waits for it in every pod.
func (f figures) change(s *rig.Scenario, driver *rig.Daemon, pods []*rig.Pod, when, value, upstream string, then func()) {
	s.Helper()
	spent, begin := spending(s, driver), time.Now()
	version := s.PutSecret(secretName(0), value)
	then()
	pods[0].AwaitFile("/mnt/secrets/"+secretName(0), value)
	one := time.Since(begin)
	s.Await("the new version in the status of all pods", func() error {
		n := 0
		for _, status := range statuses(s) {
			if status.version("secret/"+secretName(0)) == version {
				n++
			}
		}
		if n != len(pods) {
			return fmt.Errorf("%d have it", n)
		}
		return nil
	})
	all := time.Since(begin)
	s.Await("the Events of all pods", func() error {
		if n := spent().events; n < len(pods) {
			return fmt.Errorf("there were %d", n)
		}
		return nil
	})
	got := spent()
	got.limit(s, "a refresh "+when, cost{vault: figuresSecrets * windows(s, begin), writes: len(pods), events: len(pods)})
	f.work(s, fmt.Sprintf("a changed secret in the files of the %d, %s", len(pods), when), seconds(one)+" in one pod, "+seconds(all)+" in all", "", upstream, got)
}

// windows is in how many spans of shareFor there were requests since a moment: reads are shared within such a span. Pods that start at once are in one,
// unless the machine is much too busy; when they are refreshed each volume has a clock of its own.
func windows(s *rig.Scenario, since time.Time) int {
	s.Helper()
	log := slices.DeleteFunc(s.Emulator.Server.Log(), func(e emulator.Entry) bool { return e.Time.Before(since) })
	if len(log) == 0 {
		return 0
	}
	return 1 + int(log[len(log)-1].Time.Sub(log[0].Time)/shareFor)
}
