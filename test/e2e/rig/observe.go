//go:build integration && linux

package rig

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// A Daemon is the pod of a DaemonSet on one node, seen from outside: its metrics, its memory, and what it asks of the API server.
type Daemon struct {
	s                        *Scenario
	Name, Node, IP           string
	container, user, metrics string
}

// Daemon finds the one pod of the system on a node whose label "app" is given. Of its containers, container is meant; its metrics are on a port.
func (s *Scenario) Daemon(app, node, container string, metricsPort int) *Daemon {
	s.Helper()
	var found *pod
	s.Await("one pod "+app+" on "+node, func() error {
		n := 0
		for _, p := range s.pods.list() {
			if p.Namespace == SystemNamespace && p.Labels["app"] == app && p.Spec.NodeName == node {
				found, n = p, n+1
			}
		}
		if n != 1 || !ready(found) {
			return fmt.Errorf("there are %d, or it is not Ready", n)
		}
		return nil
	})
	return &Daemon{s: s, Name: found.Name, Node: node, IP: found.Status.PodIP, container: container,
		user: "system:serviceaccount:" + SystemNamespace + ":" + found.Spec.ServiceAccountName, metrics: fmt.Sprintf("http://%s:%d/metrics", found.Status.PodIP, metricsPort)}
}

// Sum adds up the samples of a metric whose labels are among others the ones given, in pairs of name and value: of counters and gauges their values, of histograms the
// sums, and how many observations those are of.
func (d *Daemon) Sum(metric string, labels ...string) (sum float64, count int) {
	d.s.Helper()
	ctx, cancel := d.s.bound()
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.metrics, nil)
	if err != nil {
		d.s.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.s.Fatalf("reading the metrics of %s: %v", d.Name, err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		d.s.Fatalf("reading the metrics of %s: %v", d.Name, err)
	}
	for _, m := range families[metric].GetMetric() {
		if !labelled(m, labels) {
			continue
		}
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
		count += int(m.GetHistogram().GetSampleCount())
	}
	return sum, count
}

func labelled(m *dto.Metric, labels []string) bool {
	for pair := range slices.Chunk(labels, 2) {
		if !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == pair[0] && l.GetValue() == pair[1] }) {
			return false
		}
	}
	return true
}

// A Usage is memory in bytes. WorkingSet is the container's, which kubectl top shows: with the files of volumes, which are memory. Resident is the process' own.
type Usage struct{ WorkingSet, Resident int }

// Memory waits until kubelet has looked at the container after a moment, and tells what it used.
func (d *Daemon) Memory(after time.Time) Usage {
	d.s.Helper()
	var u Usage
	d.s.Await("kubelet's look at the memory of "+d.Name, func() error {
		b, err := d.s.api.raw(d.s.Context(), "/api/v1/nodes/"+d.Node+"/proxy/stats/summary")
		if err != nil {
			return err
		}
		at, workingSet, err := containerMemory(b, d.Name, d.container)
		if err != nil {
			return err
		}
		if !at.After(after) {
			return fmt.Errorf("it looked at %s", at)
		}
		u.WorkingSet = workingSet
		return nil
	})
	resident, _ := d.Sum("process_resident_memory_bytes")
	u.Resident = int(resident)
	return u
}

// containerMemory finds a container in kubelet's summary.
func containerMemory(summary []byte, podName, container string) (at time.Time, workingSet int, err error) {
	var s struct {
		Pods []struct {
			PodRef     struct{ Name string }
			Containers []struct {
				Name   string
				Memory struct {
					Time            time.Time
					WorkingSetBytes int
				}
			}
		}
	}
	if err := json.Unmarshal(summary, &s); err != nil {
		return at, 0, fmt.Errorf("reading kubelet's summary: %w", err)
	}
	for _, p := range s.Pods {
		for _, c := range p.Containers {
			if p.PodRef.Name == podName && c.Name == container {
				return c.Memory.Time, c.Memory.WorkingSetBytes, nil
			}
		}
	}
	return at, 0, errors.New("kubelet does not know the container yet")
}

// Asking begins to count what the daemon asks of the API server, by the server's own record. The function returned tells the counts since, by "verb resource".
func (d *Daemon) Asking() func() map[string]int {
	d.s.Helper()
	path := d.s.Cluster.AuditLog()
	info, err := os.Stat(path)
	if err != nil {
		d.s.Fatalf("finding the API server's audit log: %v", err)
	}
	return func() map[string]int {
		d.s.Helper()
		counts, err := asked(path, info.Size(), d.user, d.Name)
		if err != nil {
			d.s.Fatalf("reading the API server's audit log: %v", err)
		}
		return counts
	}
}

// asked counts the requests of a pod in an audit log, from an offset on. A service account's token says for which pod it was made.
func asked(path string, offset int64, user, podName string) (map[string]int, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return nil, err
	}
	counts := map[string]int{}
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return counts, nil // what follows is still being written
		}
		if err != nil {
			return nil, err
		}
		if !bytes.Contains(line, []byte(user)) {
			continue
		}
		var e struct {
			Stage, Verb, RequestURI string
			User                    struct {
				Username string
				Extra    map[string][]string
			}
			ObjectRef struct{ Resource string }
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, err
		}
		if e.Stage == "RequestReceived" && e.User.Username == user && slices.Contains(e.User.Extra["authentication.kubernetes.io/pod-name"], podName) {
			counts[e.Verb+" "+e.ObjectRef.Resource]++
		}
	}
}
