package node_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keymount/internal/node"
	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/token"
)

func TestWhatThePublisherIsAsked(t *testing.T) {
	w := newWorld(t)
	v := w.last(func(r *csi.NodePublishVolumeRequest) {
		r.VolumeCapability.GetMount().VolumeMountGroup = "2000"
		r.Secrets = map[string]string{"clientid": "id", "clientsecret": "hunter2"}
	})
	if v.ID != "csi-1" || v.Target != valid().TargetPath || v.Provider != "azure" || v.Class != (publish.Class{Namespace: "shop", Name: "db"}) ||
		v.Group == nil || *v.Group != 2000 || v.Once || v.Due != (publish.Due{Every: 2 * time.Minute}) {
		t.Errorf("volume %+v", v)
	}
	want := provider.Pod{Namespace: "shop", Name: "web-1", UID: "uid-1", ServiceAccount: "reader"}
	if v.Request.Pod != want || v.Request.DefaultMode != 0o644 || v.Request.Tokens != nil ||
		!maps.Equal(v.Request.Secrets, map[string]provider.Sensitive{"clientid": "id", "clientsecret": "hunter2"}) {
		t.Errorf("request %+v", v.Request)
	}
	if !maps.Equal(v.Request.Parameters, map[string]string{"objects": "of the class", "keyvaultName": "kv",
		"secretProviderClass": "db", "csi.storage.k8s.io/ephemeral": "true"}) {
		t.Errorf("parameters %v", v.Request.Parameters)
	}
	if w.used["csi-1"] != "shop/db" {
		t.Errorf("classes in use: %v", w.used)
	}
	if _, err := w.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: "csi-1", TargetPath: v.Target}); err != nil {
		t.Fatal(err)
	}
	if w.removed["csi-1"] != v.Target || len(w.used) > 0 {
		t.Errorf("removed %v, in use %v", w.removed, w.used)
	}
}

// The attributes of the volume go over the parameters of the class; nobody writes what is kubelet's or the driver's.
func TestOverlay(t *testing.T) {
	t.Attr("conformance", "10.3/parameters-can-be-locked")
	w := newWorld(t)
	w.class.Parameters["csi.storage.k8s.io/pod.name"] = "forged"
	w.class.Parameters["csi.storage.k8s.io/serviceAccount.tokens"] = "forged"
	w.class.Parameters["csi.storage.k8s.io/ephemeral"] = "forged"
	w.class.Parameters["keymount.dev/service-account-annotations"] = "forged"
	v := w.last(func(r *csi.NodePublishVolumeRequest) {
		r.VolumeContext["keyvaultName"] = "of the pod"
		r.VolumeContext["keymount.dev/service-account-annotations"] = "forged"
		r.VolumeContext["keymount.dev/anything"] = "forged"
	})
	if !maps.Equal(v.Request.Parameters, map[string]string{"objects": "of the class", "keyvaultName": "of the pod",
		"secretProviderClass": "db", "csi.storage.k8s.io/ephemeral": "true"}) {
		t.Errorf("parameters %v", v.Request.Parameters)
	}

	w.class.LockParameters = true
	v = w.last(func(r *csi.NodePublishVolumeRequest) { // kubelet's own attributes are no override, and what looks like one is none
		r.VolumeContext["csi.storage.k8s.io/anything"] = "of the pod"
	})
	if !maps.Equal(v.Request.Parameters, map[string]string{"objects": "of the class", "keyvaultName": "kv",
		"secretProviderClass": "db", "csi.storage.k8s.io/ephemeral": "true"}) {
		t.Errorf("parameters of a locked class %v", v.Request.Parameters)
	}
	err := w.publish(func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["keyvaultName"] = "of the pod" })
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "keyvaultName") || !strings.Contains(err.Error(), "shop/db") {
		t.Errorf("got %v", err)
	}
}

// Tokens come in the secrets or the volume context; where both are, what no Secret can hold counts.
func TestTokens(t *testing.T) {
	t.Attr("conformance", "12.8/tokens-in-secrets")
	const key = "csi.storage.k8s.io/serviceAccount.tokens"
	w := newWorld(t)
	v := w.last(func(r *csi.NodePublishVolumeRequest) { r.VolumeContext[key] = "context" })
	if _, there := v.Request.Parameters[key]; there || len(v.Request.Tokens) != 1 {
		t.Errorf("parameters %v, tokens %v", v.Request.Parameters, v.Request.Tokens)
	}
	v = w.last(func(r *csi.NodePublishVolumeRequest) {
		r.VolumeContext[key] = "context"
		r.Secrets = map[string]string{key: "secrets"}
	})
	if v.Request.Secrets != nil {
		t.Errorf("the tokens are among the secrets: %d", len(v.Request.Secrets))
	}
	pod := provider.Pod{Namespace: "shop", Name: "web-1", UID: "uid-1", ServiceAccount: "reader"}
	if len(w.proofs) != 2 || w.proofs[0] != (proof{pod, "context", token.InVolumeContext}) || w.proofs[1] != (proof{pod, "secrets", token.InSecrets}) {
		t.Errorf("proofs asked for: %+v", w.proofs)
	}
}

// Kubelet calls for every volume about once a minute: as long as nothing is due, no token is read and nobody is asked.
func TestNothingDueCostsNothing(t *testing.T) {
	w := newWorld(t, func(c *node.Config) { c.AccountAnnotations = []string{"azure.workload.identity/client-id"} })
	w.resting = true
	w.last(func(r *csi.NodePublishVolumeRequest) {
		r.VolumeContext["csi.storage.k8s.io/serviceAccount.tokens"] = "context"
	})
	if len(w.proofs) > 0 || w.accountReads > 0 {
		t.Errorf("%d proofs asked for, %d accounts read", len(w.proofs), w.accountReads)
	}
}

func TestAccountAnnotations(t *testing.T) {
	w := newWorld(t, func(c *node.Config) { c.AccountAnnotations = []string{"azure.workload.identity/client-id", "other"} })
	if v := w.last(nil); v.Request.Parameters[node.AccountAnnotations] != "" {
		t.Errorf("annotations %q of an account that has none", v.Request.Parameters[node.AccountAnnotations])
	}
	w.accounts = map[string]map[string]string{"shop/reader": {"azure.workload.identity/client-id": "c", "secret": "x"}}
	if v := w.last(nil); v.Request.Parameters[node.AccountAnnotations] != `{"azure.workload.identity/client-id":"c"}` {
		t.Errorf("annotations %q", v.Request.Parameters[node.AccountAnnotations])
	}
	// Without the right, what does not need annotations is served; an API server that is away is another matter.
	w.refused = &provider.Error{Kind: provider.Denied, Message: "reading annotations"}
	if v := w.last(nil); v.Request.Parameters[node.AccountAnnotations] != "" {
		t.Errorf("annotations %q without the right", v.Request.Parameters[node.AccountAnnotations])
	}
	w.refused = &provider.Error{Kind: provider.Unavailable, Message: "reading annotations"}
	if err := w.publish(nil); err == nil || !strings.Contains(err.Error(), "reading annotations") {
		t.Errorf("got %v", err)
	}
}

// When a volume is refreshed: by flag, by class, never faster than the flag's bound, and not at all without rotation.
func TestRotation(t *testing.T) {
	for _, tc := range []struct {
		name      string
		interval  time.Duration // by flag
		class     time.Duration
		wantOnce  bool
		wantEvery time.Duration
	}{
		{"by flag", 2 * time.Minute, 0, false, 2 * time.Minute},
		{"by class, shorter", 2 * time.Minute, 45 * time.Second, false, 45 * time.Second},
		{"by class, longer", 2 * time.Minute, time.Hour, false, time.Hour},
		{"by class, too short", 2 * time.Minute, time.Second, false, 30 * time.Second},
		{"off", 0, 0, true, 0},
		{"off, whatever the class says", 0, time.Minute, true, time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, func(c *node.Config) { c.Rotation.Interval = tc.interval })
			seen := time.Now()
			w.class.RotationPollInterval, w.class.Refresh, w.class.RefreshSeen = tc.class, "now", seen
			w.class.RefreshChanged = true
			v := w.last(nil)
			if v.Once != tc.wantOnce || v.Due != (publish.Due{Every: tc.wantEvery, Mark: "now", MarkSeen: seen, MarkChanged: true}) {
				t.Errorf("once %v, due %+v", v.Once, v.Due)
			}
			if warned := len(v.Warnings) > 0; warned != (tc.class > 0 && tc.class < 30*time.Second) {
				t.Errorf("warnings %q", v.Warnings)
			}
			if inUse := len(w.used) > 0; inUse == tc.wantOnce {
				t.Errorf("classes watched: %v", w.used)
			}
		})
	}
}

// What the class asks of Secrets goes with the volume, and its warnings stay its own.
func TestSecretsGoWithTheVolume(t *testing.T) {
	w := newWorld(t)
	w.class.Secrets, w.class.Warnings = []publish.SecretObject{{Name: "tls"}}, []string{"odd"}
	w.class.UID, w.class.Generation = "u", 7
	v := w.last(nil)
	if len(v.Secrets) != 1 || v.Secrets[0].Name != "tls" || v.ClassUID != "u" || v.ClassGeneration != 7 || len(v.Warnings) != 1 {
		t.Errorf("got %+v", v)
	}
}

// Without rotation a class is watched only where Secrets are to be kept in being.
func TestClassesOfSecretsAreWatchedWithoutRotation(t *testing.T) {
	w := newWorld(t, func(c *node.Config) { c.Rotation = node.Rotation{} })
	w.last(nil)
	if len(w.used) > 0 {
		t.Errorf("watched without need: %v", w.used)
	}
	w.class.Secrets = []publish.SecretObject{{Name: "tls"}}
	w.last(nil)
	if len(w.used) != 1 {
		t.Errorf("watched: %v", w.used)
	}
}
