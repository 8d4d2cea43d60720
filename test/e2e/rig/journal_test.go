//go:build integration && linux

package rig

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A log whose connection is cut is read on where it was left, each line once, until the container has ended.
func TestJournalReadsOn(t *testing.T) {
	begin := time.Now()
	stamp := func(s int) string { return begin.Add(time.Duration(s) * time.Second).UTC().Format(time.RFC3339Nano) }
	var asked atomic.Int32
	again, second := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch asked.Add(1) {
		case 1: // as when kubelet is restarted
			fmt.Fprintf(w, "%s level=ERROR msg=before\n%s level=INFO msg=one\n%s level=ERROR msg=two\n", stamp(-5), stamp(1), stamp(2))
		case 2:
			close(again)
			if since := r.URL.Query().Get("sinceTime"); since != begin.Add(2*time.Second).UTC().Format(time.RFC3339) {
				t.Errorf("it is read on from %s", since)
			}
			fmt.Fprintf(w, "%s level=ERROR msg=two\n%s level=ERROR msg=three\n", stamp(2), stamp(3))
			w.(http.Flusher).Flush()
			<-second
		}
	}))
	defer server.Close()
	j := newJournal(&api{base: server.URL, http: server.Client()}, t.TempDir())
	j.begin = begin
	p := &pod{}
	p.Namespace, p.Name = SystemNamespace, "driver"
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://1", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	j.see(t.Context(), p)
	<-again
	p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	j.see(t.Context(), p)
	close(second)
	j.finish(nil)
	want := []string{"driver main: level=ERROR msg=two", "driver main: level=ERROR msg=three"}
	if got := strings.Join(j.errors, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("the errors are\n%s", got)
	}
	text, err := os.ReadFile(filepath.Join(j.dir, "driver.main.0.log"))
	if err != nil || string(text) != "level=INFO msg=one\nlevel=ERROR msg=two\nlevel=ERROR msg=three\n" {
		t.Errorf("the log is %q, %v", text, err)
	}
	if asked.Load() != 2 {
		t.Errorf("the log was asked for %d times", asked.Load())
	}
	if got := j.mentions("msg=three"); len(got) != 1 || !strings.HasPrefix(got[0], "driver.main.0.log: ") {
		t.Errorf("the lines that mention it are %q", got)
	}
}

// Scenarios' own pods are not followed.
func TestJournalPassesScenariosOver(t *testing.T) {
	j := newJournal(&api{}, t.TempDir())
	p := &pod{}
	p.Namespace = namespacePrefix + "a"
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://1", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	j.see(t.Context(), p)
	if len(j.tails) != 0 {
		t.Error("it is followed")
	}
}
