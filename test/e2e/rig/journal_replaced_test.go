//go:build integration && linux

package rig

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// When its node was rebooted a container's name leads to the log of the next one, which never ends; the rest of its own is asked for as the previous one's.
func TestJournalOfAContainerThatWasReplaced(t *testing.T) {
	begin := time.Now()
	stamp := func(s int) string { return begin.Add(time.Duration(s) * time.Second).UTC().Format(time.RFC3339Nano) }
	following := make(chan struct{}, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("previous") == "true" {
			fmt.Fprintf(w, "%s level=ERROR msg=last\n", stamp(1))
			return
		}
		w.(http.Flusher).Flush()
		following <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	j := newJournal(&api{base: server.URL, http: server.Client()}, t.TempDir())
	j.begin = begin
	p := &pod{}
	p.Namespace, p.Name = SystemNamespace, "driver"
	for _, id := range []string{"containerd://1", "containerd://2"} {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", ContainerID: id, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		j.see(t.Context(), p)
		<-following
	}
	<-j.tails["containerd://1"].done
	j.tails["containerd://2"].cancel()
	<-j.tails["containerd://2"].done
	if got := strings.Join(j.errors, "\n"); got != "driver main: level=ERROR msg=last" {
		t.Errorf("the errors are\n%s", got)
	}
}
