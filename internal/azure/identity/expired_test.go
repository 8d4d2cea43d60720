package identity_test

import (
	"testing"
	"time"

	"keymount/internal/azure/identity"
	"keymount/internal/azure/vault"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
)

// The access token that a pod got can outlive the service account token that it was given for. Whoever brings that one
// after its end is served nothing that it bought before, not even the same pod: Entra ID decides each time.
func TestExpiredTokensAreServedFromNoCache(t *testing.T) {
	const life = 10 * time.Minute // that of access tokens is an hour
	pod, other := reader("uid-1"), reader("uid-2")
	for name, tc := range map[string]struct {
		pod   provider.Pod // that brings the token, which is pod's
		proof provider.Proof
		// end is the token's as it says so, if it is not life from now.
		end time.Time
	}{
		"proven":                       {pod: pod, proof: provider.ProvenByRequest},
		"unproven":                     {pod: pod},
		"unproven, of another pod":     {pod: other},
		"with an end that cannot be":   {pod: pod, end: time.Unix(200_000_000_000, 0)},
		"of another pod, with such an": {pod: other, end: time.Unix(200_000_000_000, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			clock := time.Now()
			now := func() time.Time { return clock }
			w.source = identity.NewFromRequest(identity.Config{Transport: w.Transport(), Now: now})
			w.client = vault.New(vault.Config{Transport: w.Transport(), ShareFor: time.Hour, Now: now})
			token := w.tokenOf(pod, life)
			if !tc.end.IsZero() {
				token = w.tokenUntil(t, pod, tc.end)
			}
			req := with(tc.pod, token, tc.proof)
			if got, err := w.read(t.Context(), req, workloadSpec()); err != nil || got != treasure {
				t.Fatalf("while it is valid: %q, %v", got, err)
			}
			openEntra, openVault := w.closeDoors()
			defer openEntra()
			defer openVault()
			if tc.end.IsZero() {
				if got, err := w.read(t.Context(), req, workloadSpec()); err != nil || got != treasure {
					t.Fatalf("it is not kept at all, so the test shows nothing: %q, %v", got, err)
				}
				clock = clock.Add(life + time.Second)
			}
			if got, err := w.read(t.Context(), req, workloadSpec()); err == nil || provider.KindOf(err) != provider.Denied {
				t.Errorf("after its end it is served %q, %v; want an error of kind denied", got, err)
			}
		})
	}
}

// tokenUntil makes a pod's token with an end of choice.
func (w *world) tokenUntil(t *testing.T, p provider.Pod, end time.Time) string {
	t.Helper()
	token, err := w.Server.Issuer(emulatortest.Issuer).Sign(map[string]any{
		"iss": emulatortest.Issuer, "sub": "system:serviceaccount:" + p.Namespace + ":" + p.ServiceAccount,
		"aud": []string{emulatortest.Audience}, "nbf": time.Now().Unix(), "iat": time.Now().Unix(), "exp": end.Unix(),
		"kubernetes.io": map[string]any{"pod": map[string]any{"name": p.Name, "uid": p.UID}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}
