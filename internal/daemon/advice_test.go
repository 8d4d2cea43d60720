package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// One line where the cluster is not what the flags need, and none where it is.
func TestAdvice(t *testing.T) {
	object := func(podInfo, republish any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"podInfoOnMount": podInfo, "requiresRepublish": republish}}}
	}
	drivers := schema.GroupResource{Group: "storage.k8s.io", Resource: "csidrivers"}
	for _, tc := range []struct {
		name     string
		object   *unstructured.Unstructured
		err      error
		rotation bool
		want     string
	}{
		{"as it should be", object(true, true), nil, true, ""},
		{"no republish, no rotation", object(true, false), nil, false, ""},
		{"no republish, rotation", object(true, false), nil, true, "requiresRepublish: true"},
		{"of the wrong type", object(true, "yes"), nil, true, "requiresRepublish: true"},
		{"no pod information", object(false, true), nil, false, "podInfoOnMount: true"},
		{"no spec", &unstructured.Unstructured{Object: map[string]any{}}, nil, false, "podInfoOnMount: true"},
		{"no object", nil, apierrors.NewNotFound(drivers, "x"), true, "no CSIDriver object"},
		{"no right", nil, apierrors.NewForbidden(drivers, "x", errors.New("no")), true, ""},
		{"no server", nil, errors.New("dial tcp: connection refused"), true, "does not answer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			a := &adviser{driverName: "x", rotation: tc.rotation, log: slog.New(slog.NewTextHandler(&log, nil))}
			a.judge(tc.object, tc.err)
			if lines := strings.Count(log.String(), "\n"); (tc.want == "") != (lines == 0) || lines > 1 || !strings.Contains(log.String(), tc.want) {
				t.Errorf("logged %q, want %q", log.String(), tc.want)
			}
		})
	}
}
