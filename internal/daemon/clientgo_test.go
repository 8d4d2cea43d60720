package daemon

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"keymount/internal/logging"
)

// At its higher verbosities client-go logs what it sends and receives, classes with their parameters among it.
func TestClientGoLogsNoBodies(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"password":"hunter2"}}`)
	}))
	t.Cleanup(api.Close)
	var log strings.Builder
	trace := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: logging.LevelTrace - 100}))
	hearClientGo(trace)
	t.Cleanup(klog.ClearLogger)

	klog.Background().WithName("n").WithValues("k", "v").V(2).Info("what it has to say")
	client, err := dynamic.NewForConfig(&rest.Config{Host: api.URL, BearerToken: "hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := klog.NewContext(context.Background(), klog.Background().WithValues("k", "v"))
	if _, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("ns").
		Get(ctx, "c", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if text := log.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "what it has to say") {
		t.Errorf("logged: %s", text)
	}
	if handler := (withoutBodies{trace.Handler()}); handler.Handle(t.Context(), slog.Record{Level: logging.LevelTrace, Message: "hunter2"}) != nil ||
		strings.Contains(log.String(), "hunter2") {
		t.Error("a line that nobody asked for was written")
	}
}
