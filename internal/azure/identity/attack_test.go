package identity_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"keymount/internal/azure/identity"
	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
)

// An attack asks for the victim's secret without being the victim.
type attack struct {
	name string
	// victim and attacker bring requests; spec is what both classes say, for it costs nothing to write the victim's.
	victim, attacker func(t *testing.T, w *world) *provider.Request
	spec             identity.Spec
}

// attacks never succeed, and each of them does once keys hold names only: both are tested below.
func attacks() []attack {
	pod := func(t *testing.T, w *world) *provider.Request {
		p := reader("uid-victim")
		return with(p, w.tokenOf(p, time.Hour), provider.ProvenByRequest)
	}
	unprovenPod := func(t *testing.T, w *world) *provider.Request {
		p := reader("uid-victim")
		return with(p, w.tokenOf(p, time.Hour), provider.Unproven)
	}
	type builder = func(t *testing.T, w *world) *provider.Request
	workload := func(name string, attacker builder) attack {
		return attack{name: name, victim: pod, attacker: attacker, spec: workloadSpec()}
	}
	forged := func(p provider.Pod, alter func(token string) string, proof provider.Proof) builder {
		return func(t *testing.T, w *world) *provider.Request {
			claimed := reader(p.UID)
			return with(p, alter(w.tokenOf(claimed, time.Hour)), proof)
		}
	}
	signedBy := func(issuer string, claimedIssuer string, p provider.Pod, proof provider.Proof) builder {
		return func(t *testing.T, w *world) *provider.Request {
			return with(p, w.sign(t, issuer, claimedIssuer, p), proof)
		}
	}
	replayed := func(p provider.Pod, of provider.Pod, lifetime time.Duration, proof provider.Proof) builder {
		return func(t *testing.T, w *world) *provider.Request { return with(p, w.tokenOf(of, lifetime), proof) }
	}
	return []attack{
		workload("forged: bad signature", forged(intruder(), breakSignature, provider.Unproven)),
		workload("forged: bad signature, claims that fit the pod", forged(reader("uid-2"), breakSignature, provider.Unproven)),
		workload("forged: alg none", forged(intruder(), algNone, provider.Unproven)),
		workload("forged: alg none, claims that fit the pod", forged(reader("uid-2"), algNone, provider.Unproven)),
		workload("forged: another issuer's key", signedBy(otherIssuer, emulatortest.Issuer, reader("uid-2"), provider.Unproven)),
		workload("wrong issuer", signedBy(otherIssuer, otherIssuer, reader("uid-2"), provider.Unproven)),
		workload("wrong issuer, said to be proven", signedBy(otherIssuer, otherIssuer, reader("uid-2"), provider.ProvenBySignature)),
		workload("replayed: the victim's pod's token", replayed(intruder(), reader("uid-victim"), time.Hour, provider.Unproven)),
		workload("replayed: the same, said to be proven", replayed(intruder(), reader("uid-victim"), time.Hour, provider.ProvenByCSIDriver)),
		workload("replayed: expired", replayed(reader("uid-2"), reader("uid-2"), -time.Hour, provider.Unproven)),
		workload("replayed: expired, said to be proven", replayed(reader("uid-2"), reader("uid-2"), -time.Hour, provider.ProvenByRequest)),
		workload("replayed: another pod of the account", replayed(reader("uid-2"), reader("uid-3"), time.Hour, provider.Unproven)),
		workload("replayed: the same, said to be proven", replayed(reader("uid-2"), reader("uid-3"), time.Hour, provider.ProvenByCSIDriver)),
		{
			name: "the victim's token is accepted by Entra ID, the attacker's is forged", victim: unprovenPod,
			attacker: forged(reader("uid-2"), breakSignature, provider.Unproven), spec: workloadSpec(),
		},
		{
			name: "replayed: the token of a victim whose own is unproven", victim: unprovenPod,
			attacker: replayed(intruder(), reader("uid-victim"), time.Hour, provider.Unproven), spec: workloadSpec(),
		},
		{
			name: "wrong client secret, right client id", spec: principalSpec(),
			victim: func(*testing.T, *world) *provider.Request {
				return secrets(emulatortest.ClientID, emulatortest.ClientSecret)
			},
			attacker: func(*testing.T, *world) *provider.Request {
				return secrets(emulatortest.ClientID, emulatortest.ClientSecret+"x")
			},
		},
	}
}

// sign makes a token of one cluster that may say it is another's.
func (w *world) sign(t *testing.T, issuer, claimed string, p provider.Pod) string {
	t.Helper()
	now := time.Now()
	token, err := w.Server.Issuer(issuer).Sign(map[string]any{
		"iss": claimed, "sub": "system:serviceaccount:" + p.Namespace + ":" + p.ServiceAccount,
		"aud": []string{emulatortest.Audience}, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": p.Namespace, "pod": map[string]any{"name": p.Name, "uid": p.UID},
			"serviceaccount": map[string]any{"name": p.ServiceAccount, "uid": "u"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func breakSignature(token string) string {
	i := strings.LastIndexByte(token, '.') + 1
	flipped := byte('A')
	if token[i] == 'A' {
		flipped = 'B'
	}
	return token[:i] + string(flipped) + token[i+1:]
}

func algNone(token string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + strings.Split(token, ".")[1] + "."
}

// closeDoors makes Entra ID and the vault refuse everybody: what an attacker gets from now on is somebody else's.
func (w *world) closeDoors() (openEntra, openVault func()) {
	openEntra = w.SetFault(emulator.Fault{Do: emulator.ActStatus, Kind: emulator.GroupToken, Status: http.StatusUnauthorized,
		Body: `{"error":"invalid_client","error_description":"AADSTS7000215: refused by the test","error_codes":[7000215]}`})
	openVault = w.SetFault(emulator.Fault{Do: emulator.ActForbidden, Kind: emulator.GroupVault})
	return openEntra, openVault
}

// afterwards lets the attacker ask when the victim's read has just finished.
func afterwards(t *testing.T, w *world, a attack) (string, error) {
	victim, attacker := a.victim(t, w), a.attacker(t, w)
	if got, err := w.read(t.Context(), victim, a.spec); err != nil || got != treasure {
		t.Fatalf("the victim reads %q, %v", got, err)
	}
	openEntra, openVault := w.closeDoors()
	defer openEntra()
	defer openVault()
	if got, err := w.read(t.Context(), victim, a.spec); err != nil || got != treasure {
		t.Fatalf("the victim does not share with itself, so the attack shows nothing: %q, %v", got, err)
	}
	return w.read(t.Context(), attacker, a.spec)
}

// meanwhile lets the attacker ask while the victim's read hangs at the vault. Whoever shares that read would hang too, so
// shares says whether the attacker is expected to.
func meanwhile(t *testing.T, w *world, a attack, shares bool) (string, error) {
	victim, attacker := a.victim(t, w), a.attacker(t, w)
	w.Server.ResetRequests()
	release := w.SetFault(emulator.Fault{Do: emulator.ActHang, Kind: emulator.KindSecretGet, Times: 1})
	type result struct {
		value string
		err   error
	}
	read := func(req *provider.Request) chan result {
		done := make(chan result, 1)
		go func() {
			value, err := w.read(context.Background(), req, a.spec)
			done <- result{value, err}
		}()
		return done
	}
	victimDone := read(victim)
	w.Await(emulator.KindSecretGet, 1)
	openEntra, openVault := w.closeDoors()
	attackerDone := read(attacker)
	var got result
	if shares {
		openVault() // the hanging answer would be refused too; Entra ID still gives nobody a token
		release()
		got = <-attackerDone
	} else {
		select {
		case got = <-attackerDone:
		case <-time.After(20 * time.Second):
			openVault()
			release()
			t.Fatalf("the attacker waits for the victim's read")
		}
		openVault()
		release()
	}
	openEntra()
	if v := <-victimDone; v.err != nil || v.value != treasure {
		t.Fatalf("the victim reads %q, %v", v.value, v.err)
	}
	return got.value, got.err
}

func TestAttacksGetNothing(t *testing.T) {
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			w := newWorld(t)
			for when, run := range map[string]func() (string, error){
				"afterwards": func() (string, error) { return afterwards(t, w, a) },
				"meanwhile":  func() (string, error) { return meanwhile(t, w, a, false) },
			} {
				w.restart()
				got, err := run()
				if got != "" || provider.KindOf(err) != provider.Denied || err == nil {
					t.Errorf("%s: the attacker gets %q, %v; want an error of kind denied", when, got, err)
				}
			}
		})
	}
}

// The table above would also pass if the attacks were clumsy. It is the proof in the key that defeats them: without it,
// every one of them is served the victim's secret.
func TestAttacksSucceedOnceTheProofIsTakenOut(t *testing.T) {
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			w := newWorld(t)
			for when, run := range map[string]func() (string, error){
				"afterwards": func() (string, error) { return afterwards(t, w, a) },
				"meanwhile":  func() (string, error) { return meanwhile(t, w, a, true) },
			} {
				w.restart()
				w.source.TakeProofOutOfKeys()
				if got, err := run(); err != nil || got != treasure {
					t.Errorf("%s: the attack fails even without the proof, so it tests nothing: %q, %v", when, got, err)
				}
			}
		})
	}
}

// An attacker who holds a genuine token may use it, but pays for everything alone.
func TestGenuineTokenOfAnotherPodSharesNothing(t *testing.T) {
	w := newWorld(t)
	token := w.tokenOf(reader("uid-1"), time.Hour)
	another := intruder()
	another.Name, another.UID = "another", "uid-another"
	for i, pod := range []provider.Pod{reader("uid-1"), intruder(), another} {
		w.Server.ResetRequests()
		req := with(pod, token, provider.Unproven)
		if got, err := w.read(t.Context(), req, workloadSpec()); err != nil || got != treasure {
			t.Fatalf("%q, %v", got, err)
		}
		n := w.Requests()
		if n[emulator.KindToken] != 1 || n[emulator.KindSecretGet] != 1 {
			t.Errorf("request %d made %v, want a token and a read of its own", i, n)
		}
	}
}

// One name of a cloud can mean two places: what counts is where a token comes from and what it is for.
func TestCustomCloudsDoNotShare(t *testing.T) {
	w := newWorld(t)
	if _, err := w.read(t.Context(), secrets(emulatortest.ClientID, emulatortest.ClientSecret), principalSpec()); err != nil {
		t.Fatal(err)
	}
	openEntra, openVault := w.closeDoors()
	defer openEntra()
	defer openVault()
	for name, change := range map[string]func(*identity.Spec){
		"authority": func(s *identity.Spec) { s.Authority = "https://login.microsoftonline.us" },
		"resource":  func(s *identity.Spec) { s.Resource = "https://vault.azure.cn" },
		"tenant":    func(s *identity.Spec) { s.TenantID = "33333333-3333-4333-8333-333333333333" },
	} {
		spec := principalSpec()
		change(&spec)
		if got, err := w.read(t.Context(), secrets(emulatortest.ClientID, emulatortest.ClientSecret), spec); err == nil {
			t.Errorf("another %s is served %q", name, got)
		}
	}
}

// Whoever asks and however it is printed, no key and no credential shows what proves it.
func TestKeysAndCredentialsPrintNoProof(t *testing.T) {
	w := newWorld(t)
	pod := reader("uid-1")
	token := w.tokenOf(pod, time.Hour)
	for _, tc := range []struct {
		req    *provider.Request
		spec   identity.Spec
		secret string
	}{
		{secrets(emulatortest.ClientID, emulatortest.ClientSecret), principalSpec(), emulatortest.ClientSecret},
		{with(pod, token, provider.ProvenByRequest), workloadSpec(), token},
		{with(pod, token, provider.Unproven), workloadSpec(), token},
	} {
		cred, err := w.source.Credential(t.Context(), tc.req, tc.spec)
		if err != nil {
			t.Fatal(err)
		}
		key, err := cred.Key(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := key.String()
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			if got := fmt.Sprintf(verb, key); got != want {
				t.Errorf("%s prints %q, want %q", verb, got, want)
			}
			if got := fmt.Sprintf(verb, cred); strings.Contains(got, tc.secret) || strings.Contains(got, fmt.Sprintf("%x", tc.secret)) {
				t.Errorf("%s of the credential prints the secret: %s", verb, got)
			}
		}
		if !strings.Contains(want, emulatortest.ClientID) {
			t.Errorf("%q does not say who it is", want)
		}
	}
}
