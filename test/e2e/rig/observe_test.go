//go:build integration && linux

package rig

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// Requests are counted once, when they come, from an offset on, and those of one pod only.
func TestAsked(t *testing.T) {
	line := func(stage, user, pod, verb, resource string) string {
		return `{"stage":"` + stage + `","verb":"` + verb + `","user":{"username":"` + user + `","extra":{"authentication.kubernetes.io/pod-name":["` + pod +
			`"]}},"objectRef":{"resource":"` + resource + `"}}` + "\n"
	}
	old := line("RequestReceived", "driver", "a", "get", "classes")
	path := filepath.Join(t.TempDir(), "audit.log")
	text := old + line("RequestReceived", "driver", "a", "get", "classes") + line("ResponseComplete", "driver", "a", "get", "classes") +
		line("RequestReceived", "driver", "b", "get", "classes") + line("RequestReceived", "other", "a", "get", "classes") +
		line("RequestReceived", "driver", "a", "create", "events") + `{"stage":"Requ`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := asked(path, int64(len(old)), "driver", "a")
	if want := map[string]int{"get classes": 1, "create events": 1}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}

func TestContainerMemory(t *testing.T) {
	summary := `{"pods":[{"podRef":{"name":"a"},"containers":[{"name":"x","memory":{"time":"2026-11-27T23:18:11Z","workingSetBytes":5}},
		{"name":"y","memory":{"workingSetBytes":7}}]},{"podRef":{"name":"b"},"containers":[{"name":"x","memory":{"workingSetBytes":9}}]}]}`
	at, bytes, err := containerMemory([]byte(summary), "a", "x")
	if err != nil || bytes != 5 || !at.Equal(time.Date(2026, 11, 27, 23, 18, 11, 0, time.UTC)) {
		t.Errorf("%v, %d, %v", at, bytes, err)
	}
	if _, _, err := containerMemory([]byte(summary), "b", "y"); err == nil {
		t.Error("a container was found that is not there")
	}
}

func TestLabelled(t *testing.T) {
	m := &dto.Metric{Label: []*dto.LabelPair{{Name: proto.String("a"), Value: proto.String("1")}, {Name: proto.String("b"), Value: proto.String("2")}}}
	for _, tc := range []struct {
		labels []string
		want   bool
	}{{nil, true}, {[]string{"b", "2"}, true}, {[]string{"a", "1", "b", "2"}, true}, {[]string{"a", "2"}, false}, {[]string{"c", "1"}, false}} {
		if got := labelled(m, tc.labels); got != tc.want {
			t.Errorf("%q: %v", tc.labels, got)
		}
	}
}
