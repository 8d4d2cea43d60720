//go:build integration && linux

package rig

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// errorLine matches lines of slog's and klog's formats at the level of errors, and what Go's runtime says before it ends a program.
var errorLine = regexp.MustCompile(`(\blevel=ERROR\b)|("level":"ERROR")|(^[EF]\d{4} \d\d:\d\d:)|(^panic: )|(^fatal error: )|(^WARNING: DATA RACE)`)

// A journal follows the logs of the system's pods from their start, and keeps the error lines.
type journal struct {
	api   *api
	dir   string
	begin time.Time // of the run; on a cluster that was kept, what was logged before is not its own

	mu       sync.Mutex
	tails    map[string]*tail // by container id
	errors   []string         // "pod container: line"
	declared []*declaration
}

func newJournal(a *api, dir string) *journal {
	return &journal{api: a, dir: dir, begin: time.Now(), tails: map[string]*tail{}}
}

// A tail is the log of one container, from its start to its end.
type tail struct {
	j                    *journal
	namespace, pod, name string
	last                 time.Time // of the last line that was read
	file                 *os.File
	cancel               context.CancelFunc
	done                 chan struct{}

	// Guarded by journal.mu:
	ended    bool               // the container has
	replaced bool               // another has its name in the pod; a log is asked for by that
	cut      context.CancelFunc // ends the reading that is under way
}

// see begins to follow the containers of a pod that have started, and notes which have ended, unless the pod is a scenario's.
func (j *journal) see(ctx context.Context, p *pod) {
	if strings.HasPrefix(p.Namespace, namespacePrefix) {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		for id, t := range j.tails {
			if t.namespace == p.Namespace && t.pod == p.Name && t.name == c.Name {
				t.ended = t.ended || id != c.ContainerID || c.State.Running == nil
				if !t.replaced && c.ContainerID != "" && id != c.ContainerID {
					t.replaced = true
					t.cut() // it may be the other's log by now
				}
			}
		}
		if c.ContainerID != "" && c.State.Waiting == nil && j.tails[c.ContainerID] == nil {
			j.tails[c.ContainerID] = j.start(ctx, p, c.Name, int(c.RestartCount))
		}
	}
}

func (j *journal) start(ctx context.Context, p *pod, container string, restart int) *tail {
	t := &tail{j: j, namespace: p.Namespace, pod: p.Name, name: container, last: j.begin, done: make(chan struct{}), cut: func() {}}
	var own context.Context
	own, t.cancel = context.WithCancel(ctx)
	go t.follow(own, restart)
	return t
}

// follow reads until the container's log has ended, again and again where the connection is cut: by kubelet's or the API server's restart.
func (t *tail) follow(ctx context.Context, restart int) {
	defer close(t.done)
	file := filepath.Join(t.j.dir, fmt.Sprintf("%s.%s.%d.log", t.pod, t.name, restart))
	err := os.MkdirAll(t.j.dir, 0o755)
	if err == nil {
		t.file, err = os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	}
	if err != nil {
		t.j.record("keeping the log of " + t.pod + ": " + err.Error())
		return
	}
	defer t.file.Close()
	for ctx.Err() == nil {
		reading, cut := context.WithCancel(ctx)
		err := t.read(reading, t.begin(cut))
		cut()
		// With kubelet, the log ends as if the container had.
		if err == nil && t.over() || err != nil && gone(err) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// begin tells how to ask for the log, and notes how to end the reading.
func (t *tail) begin(cut context.CancelFunc) (how string) {
	t.j.mu.Lock()
	defer t.j.mu.Unlock()
	if t.cut = cut; t.replaced {
		return "previous"
	}
	return "follow"
}

func (t *tail) over() bool {
	t.j.mu.Lock()
	defer t.j.mu.Unlock()
	return t.ended
}

// gone tells that there is no such container any more.
func gone(err error) bool {
	return strings.Contains(err.Error(), ": 404") || strings.Contains(err.Error(), ": 400")
}

// read reads the log from the last line on: to its end at this moment or, with "follow", for ever; with "previous" that of the container before this one.
func (t *tail) read(ctx context.Context, how string) error {
	query := url.Values{"container": {t.name}, "timestamps": {"true"}}
	if how != "" {
		query.Set(how, "true")
	}
	query.Set("sinceTime", t.last.UTC().Format(time.RFC3339)) // the server knows whole seconds
	body, err := t.j.api.stream(ctx, "/api/v1/namespaces/"+t.namespace+"/pods/"+t.pod+"/log?"+query.Encode())
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewReaderSize(body, 64<<10)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			t.line(strings.TrimSuffix(line, "\n"))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tail) line(text string) {
	stamp, text, _ := strings.Cut(text, " ")
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err == nil {
		if !at.After(t.last) {
			return // read already, before the connection was cut
		}
		t.last = at
	}
	fmt.Fprintln(t.file, text)
	if errorLine.MatchString(text) {
		t.j.record(t.pod + " " + t.name + ": " + text)
	}
}

// maxErrors bounds the error lines that are kept.
const maxErrors = 10000

func (j *journal) record(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.errors) < maxErrors {
		j.errors = append(j.errors, line)
	}
}

// finish reads what the containers that still run have written up to now, and ends.
func (j *journal) finish(pods []*pod) {
	running := map[string]bool{}
	for _, p := range pods {
		for _, c := range p.Status.ContainerStatuses {
			running[c.ContainerID] = c.State.Running != nil
		}
	}
	j.mu.Lock()
	tails := j.tails
	j.tails = map[string]*tail{}
	j.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for id, t := range tails {
		if !running[id] {
			select { // the log of a container that has ended ends, too
			case <-t.done:
			case <-ctx.Done():
			}
		}
		t.cancel()
		<-t.done
		if running[id] {
			t.rest(ctx)
		}
	}
}

func (t *tail) rest(ctx context.Context) {
	file, err := os.OpenFile(t.file.Name(), os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		t.file = file
		defer file.Close()
		err = t.read(ctx, "")
	}
	if err != nil {
		t.j.record("reading the rest of the log of " + t.pod + ": " + err.Error())
	}
}

// mentions are the last lines of all logs that contain the text.
func (j *journal) mentions(text string) []string {
	const most = 10
	files, err := filepath.Glob(filepath.Join(j.dir, "*.log"))
	if err != nil {
		return nil
	}
	var all []string
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it is only for a report of something else
		}
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, text) {
				all = append(all, filepath.Base(name)+": "+line[:min(len(line), 500)])
			}
		}
	}
	return all[max(0, len(all)-most):]
}

// ExpectError declares that a pod of the system logs an error, in a line (which begins with the pod's name) that contains all the texts.
func (s *Scenario) ExpectError(texts ...string) {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	s.journal.declared = append(s.journal.declared, &declaration{by: s.Name(), texts: texts})
}

func (j *journal) check(t *testing.T) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var undeclared []string
	for _, line := range j.errors {
		expected := false
		for _, d := range j.declared {
			if d.matches(line) {
				d.used, expected = true, true
			}
		}
		if !expected {
			undeclared = append(undeclared, line)
		}
	}
	if n := len(undeclared); n > 0 {
		var shown []string
		for _, line := range undeclared[:min(n, 10)] {
			shown = append(shown, line[:min(len(line), 600)])
		}
		t.Errorf("%d error lines that no scenario declared; the logs are in %s, and the first ones:\n%s", n, j.dir, strings.Join(shown, "\n"))
	}
	unused(t, "line of an error", j.declared)
}
