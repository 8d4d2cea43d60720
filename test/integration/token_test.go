//go:build integration && linux

package integration

import (
	"encoding/json"
	"fmt"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keymount/internal/provider"
	"keymount/internal/serviceaccount"
	"keymount/internal/token"
	"keymount/test/integration/apiserver"
)

const audience = "api://AzureADTokenExchange"

func csiDriver(name, requests string) string {
	return fmt.Sprintf(`
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: %s}
spec: {podInfoOnMount: true, attachRequired: false, volumeLifecycleModes: [Ephemeral], tokenRequests: [%s]}
`, name, requests)
}

// wire writes tokens as kubelet does.
func wire(t *testing.T, tokens map[string]authenticationv1.TokenRequestStatus) string {
	t.Helper()
	text, err := json.Marshal(tokens)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTokens(t *testing.T) {
	server, ns := api, api.Namespace(t)
	driverName := ns + ".csi.test"
	user, config := asDriver(t, server, ns, driverName)
	server.ServiceAccount(t, ns, "app", nil)
	pod := server.Pod(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns}, Spec: corev1.PodSpec{ServiceAccountName: "app"}})
	other := server.Pod(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns}, Spec: corev1.PodSpec{ServiceAccountName: "app"}})
	p, err := token.New(token.Config{API: config, DriverName: driverName})
	if err != nil {
		t.Fatal(err)
	}
	background(t, p.Run)
	text := func(of *corev1.Pod, audiences ...string) string {
		out := map[string]authenticationv1.TokenRequestStatus{}
		for _, audience := range audiences {
			options := []apiserver.TokenOption{apiserver.BoundTo(of)}
			if audience != "" {
				options = append(options, apiserver.ForAudiences(audience))
			}
			out[audience] = server.Token(t, ns, "app", options...)
		}
		return wire(t, out)
	}
	who := provider.Pod{Namespace: ns, Name: pod.Name, UID: string(pod.UID), ServiceAccount: "app"}
	prove := func(text string, from token.Origin, audience string) provider.Proof {
		t.Helper()
		got, err := p.Prove(t.Context(), who, text, from)
		if err != nil || got[audience].Value == "" {
			t.Fatalf("got %v, %v", got, err)
		}
		return got[audience].Proof
	}
	want := func(got, want provider.Proof, what string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: proof is %v, want %v", what, got, want)
		}
	}
	own := text(pod, audience, "")

	want(prove(own, token.InSecrets, audience), provider.ProvenByRequest, "in secrets")
	want(prove(own, token.InSecrets, ""), provider.ProvenByRequest, "for the API server, in secrets")
	want(prove(text(other, audience), token.InSecrets, audience), provider.Unproven, "another pod's")
	if n := len(server.Requests(t, user)); n != 0 {
		t.Errorf("%d requests were made for it", n)
	}
	want(prove(own, token.InVolumeContext, audience), provider.ProvenBySignature, "by its signature")
	want(prove(own, token.InVolumeContext, ""), provider.ProvenBySignature, "for the API server, by its signature")
	want(prove(text(other, audience), token.InVolumeContext, audience), provider.Unproven, "another pod's, by its signature")

	server.ApplyText(t, csiDriver(driverName, "{audience: "+audience+"}"))
	eventually(t, "the CSIDriver object", func() bool {
		return prove(text(pod, audience), token.InVolumeContext, audience) == provider.ProvenByCSIDriver
	})
	want(prove(text(pod, "another"), token.InVolumeContext, "another"), provider.ProvenBySignature, "for an audience not requested")
	server.ApplyText(t, csiDriver(driverName, "")) // a later token was not put there by kubelet
	eventually(t, "the change", func() bool {
		return prove(text(pod, audience), token.InVolumeContext, audience) == provider.ProvenBySignature
	})

	before := apiserver.Counts(server.Requests(t, user))
	for range 20 {
		prove(text(pod, audience), token.InVolumeContext, audience)
	}
	after := apiserver.Counts(server.Requests(t, user))
	t.Logf("requests: %v", after)
	for what, n := range after {
		if n != before[what] {
			t.Errorf("20 new tokens took %d times %s", n-before[what], what)
		}
	}
	// Every service account may read the keys: the API server makes that binding itself.
	if refused := server.Forbidden(t, user); len(refused) > 0 {
		t.Errorf("upstream's rights do not cover %v", refused)
	}
}

func TestServiceAccountAnnotations(t *testing.T) {
	server, ns := api, api.Namespace(t)
	const id = "azure.workload.identity/client-id"
	server.ServiceAccount(t, ns, "app", map[string]string{id: "11111111-2222-3333-4444-555555555555", "other": "x"})
	said := &logs{}
	reader := func(account string) *serviceaccount.Reader {
		config := server.Admin()
		if account != "" {
			config = server.ConfigFor(server.Token(t, ns, account).Token)
		}
		r, err := serviceaccount.New(serviceaccount.Config{API: config, Log: said.logger()})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	got, err := reader("").Annotations(t.Context(), ns, "app", []string{id, "absent"})
	if err != nil || len(got) != 1 || got[id] != "11111111-2222-3333-4444-555555555555" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := reader("").Annotations(t.Context(), ns, "none", []string{id}); provider.KindOf(err) != provider.NotFound {
		t.Errorf("of an account that is not there: %v", err)
	}
	if _, err := reader("default").Annotations(t.Context(), ns, "app", []string{id}); provider.KindOf(err) != provider.Denied || said.count("lacks get on serviceaccounts") != 1 {
		t.Errorf("without the right: %v", err)
	}
}
