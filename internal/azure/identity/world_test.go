package identity_test

import (
	"context"
	"testing"
	"time"

	"keymount/internal/azure/identity"
	"keymount/internal/azure/params"
	"keymount/internal/azure/vault"
	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
)

const (
	vaultURL    = "https://alpha.vault.azure.net"
	otherIssuer = "https://oidc.cluster.example/other/"
	treasure    = "the value that only the victim may have"
)

// A world is an emulator with one vault and one secret, and a process that reads from it.
type world struct {
	*emulatortest.Emulator
	source *identity.FromRequest
	client *vault.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	seed := emulatortest.DefaultSeed("alpha")
	seed.Issuers = append(seed.Issuers, emulator.IssuerSeed{URL: otherIssuer})
	w := &world{Emulator: emulatortest.Start(t, seed)}
	w.PutSecret("alpha", "treasure", treasure)
	w.restart()
	return w
}

// restart forgets everything that the process knew.
func (w *world) restart() {
	transport := w.Transport()
	frozen := time.Now()
	w.source = identity.NewFromRequest(identity.Config{Transport: transport})
	w.client = vault.New(vault.Config{Transport: transport, ShareFor: vault.DefaultShareFor, Now: func() time.Time { return frozen }})
}

// read reads the secret as whoever the request proves to be.
func (w *world) read(ctx context.Context, req *provider.Request, spec identity.Spec) (string, error) {
	cred, err := w.source.Credential(ctx, req, spec)
	if err != nil {
		return "", err
	}
	s, err := w.client.Secret(ctx, cred, vaultURL, "treasure", "")
	if err != nil {
		return "", err
	}
	return string(s.Value), nil
}

func workloadSpec() identity.Spec {
	return identity.Spec{Mode: params.WorkloadIdentity, TenantID: emulatortest.Tenant, ClientID: emulatortest.ClientID,
		Authority: "https://login.microsoftonline.com", Resource: "https://vault.azure.net"}
}

func principalSpec() identity.Spec {
	spec := workloadSpec()
	spec.Mode, spec.ClientID = params.ServicePrincipal, ""
	return spec
}

func secrets(client, secret string) *provider.Request {
	return &provider.Request{Pod: reader("uid-0"), Secrets: map[string]provider.Sensitive{
		"clientid": provider.Sensitive(client), "clientsecret": provider.Sensitive(secret)}}
}

// reader is a pod of the service account that the application trusts.
func reader(uid string) provider.Pod {
	return provider.Pod{Namespace: "app", Name: "reader-" + uid, UID: uid, ServiceAccount: "reader"}
}

// intruder is a pod of another one.
func intruder() provider.Pod {
	return provider.Pod{Namespace: "elsewhere", Name: "intruder", UID: "uid-intruder", ServiceAccount: "intruder"}
}

func with(pod provider.Pod, token string, proof provider.Proof) *provider.Request {
	return &provider.Request{Pod: pod, Tokens: map[string]provider.Token{
		emulatortest.Audience: {Value: provider.Sensitive(token), Proof: proof}}}
}

// tokenOf makes the token that kubelet gets for a pod.
func (w *world) tokenOf(pod provider.Pod, lifetime time.Duration) string {
	return w.ServiceAccountToken(pod.Namespace, pod.ServiceAccount, pod.Name, pod.UID, emulatortest.Audience, lifetime)
}
