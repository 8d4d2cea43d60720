//go:build integration && linux

package keeper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestSchedulable(t *testing.T) {
	ready := func() *corev1.Node {
		return &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse}, {Type: corev1.NodeReady, Status: corev1.ConditionTrue},
		}}}
	}
	if err := schedulable(ready()); err != nil {
		t.Errorf("a ready node: %v", err)
	}
	for name, change := range map[string]func(*corev1.Node){
		"not told": func(n *corev1.Node) { n.Status.Conditions = nil },
		"not ready: NoNetwork: no CNI": func(n *corev1.Node) {
			n.Status.Conditions[1] = corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "NoNetwork", Message: "no CNI"}
		},
		"tainted: a=b:NoSchedule": func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "a", Value: "b", Effect: corev1.TaintEffectNoSchedule}}
		},
		"not ready: NodeStatusUnknown: ": func(n *corev1.Node) {
			n.Status.Conditions[1].Status, n.Status.Conditions[1].Reason = corev1.ConditionUnknown, "NodeStatusUnknown"
		},
	} {
		node := ready()
		change(node)
		if err := schedulable(node); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
}

func TestPollTellsTheLastAnswer(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	asked := 0
	err := poll(ctx, "the moon", func(context.Context) error {
		if asked++; asked == 2 {
			cancel(errors.New("dawn"))
		}
		return errors.New("no moon")
	})
	if asked != 2 || err == nil || !strings.Contains(err.Error(), "the moon: dawn") || !strings.Contains(err.Error(), "no moon") {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if got := Tail(path); !strings.Contains(got, "no such file") {
		t.Errorf("no file: %q", got)
	}
	for _, tc := range []struct{ text, want string }{
		{"a\nb\n", "a\nb\n"},
		{strings.Repeat("x", 5000) + "\nend\n", "end\n"},
	} {
		if err := os.WriteFile(path, []byte(tc.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := Tail(path); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}

func TestBootIDs(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	one, two := uuid(), uuid()
	if !form.MatchString(one) || one == two {
		t.Errorf("%s, %s", one, two)
	}
}
