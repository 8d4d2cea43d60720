//go:build integration && linux

package kubelet

import (
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keymount/test/integration/apiserver"
)

// What the driver is told comes from a real API server: its object, a secret, a token that is bound to the pod.
func TestWithAPIServer(t *testing.T) {
	server := apiserver.Start(t)
	ns := server.Namespace(t)
	server.ApplyText(t, `
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: `+driverName+`}
spec:
  podInfoOnMount: true
  attachRequired: false
  requiresRepublish: true
  volumeLifecycleModes: [Ephemeral]
  tokenRequests: [{audience: vault, expirationSeconds: 1200}]
---
apiVersion: v1
kind: Secret
metadata: {name: creds, namespace: `+ns+`}
stringData: {clientid: me}
`)
	volume := Inline("vol", driverName, map[string]string{"secretProviderClass": "class"})
	volume.CSI.NodePublishSecretRef = &corev1.LocalObjectReference{Name: "creds"}
	pod := server.Pod(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns},
		Spec:       corev1.PodSpec{Volumes: []corev1.Volume{volume}},
	})
	d := &small{nodeID: "node"}
	socket := filepath.Join(t.TempDir(), "csi.sock")
	serve(t, socket, func(s *grpc.Server) { csi.RegisterNodeServer(s, d) })
	k := New(t.TempDir(), "node", FromConfig(server.Client()))
	k.drivers[driverName] = driver{endpoint: socket}
	v, err := k.Volume(pod, "vol")
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	told := d.last()
	if told.Secrets["clientid"] != "me" || told.VolumeContext["csi.storage.k8s.io/pod.uid"] != string(pod.UID) ||
		told.VolumeContext["csi.storage.k8s.io/serviceAccount.name"] != "default" {
		t.Errorf("the driver was told %v", told)
	}
	var tokens map[string]authenticationv1.TokenRequestStatus
	if err := json.Unmarshal([]byte(told.VolumeContext[TokensKey]), &tokens); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(tokens["vault"].Token+"..", ".")[1])
	if err != nil || !strings.Contains(string(payload), `"aud":["vault"]`) || !strings.Contains(string(payload), `"uid":"`+string(pod.UID)+`"`) {
		t.Errorf("the token says %s, %v", payload, err)
	}
	server.Refuse()
	defer func() {
		if err := server.Restore(); err != nil {
			t.Error(err)
		}
	}()
	// The secret is read anew each time, so without the API server there is no republish of this volume.
	if err := v.Republish(t.Context()); OutcomeOf(err) != Transient || !strings.Contains(err.Error(), "NodePublishSecretRef") {
		t.Errorf("with the API server away: %v", err)
	}
}
