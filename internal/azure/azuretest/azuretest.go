// Package azuretest lets the provider suite (internal/provider/providertest) run against the Azure provider, wherever it
// runs: in the test's own process, behind a socket, or as the program keymount-azure. It puts the emulator behind the
// provider and translates what the suite wants of objects into secrets, rights and faults there. Only tests import it.
package azuretest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
	"keymount/internal/provider/providertest"
)

const vaultName = "myvault"

const bobClient = "33333333-3333-4333-8333-333333333333"

// A harness is an emulator with the applications of alice and bob, and the provider, which shares only reads in flight.
type harness struct {
	*emulatortest.Emulator
	t        *testing.T
	provider provider.Provider

	mu sync.Mutex
	// names are those of all objects; forbidden those that one of the two may not read.
	names     map[string]bool
	forbidden map[providertest.Who]map[string]bool
	mend      map[string]func()
	// hurry ends calls soon: a vault that throttles or is down is tried again for as long as the caller waits.
	hurry bool
}

// Reach returns a provider whose Azure is the emulator. It must share only reads in flight, since the suite changes an
// object and expects the next read to see it, and serves until the test ends.
type Reach func(t *testing.T, e *emulatortest.Emulator) provider.Provider

// NewHarness starts an emulator for the suite and the provider in front of it.
func NewHarness(t *testing.T, reach Reach) *providertest.Harness {
	seed := emulatortest.DefaultSeed(vaultName)
	seed.Tenants[0].Apps = append(seed.Tenants[0].Apps, emulator.App{ClientID: bobClient,
		Federated: []emulator.Federated{{Issuer: emulatortest.Issuer, Subject: "system:serviceaccount:app:bob"}}})
	h := &harness{Emulator: emulatortest.Start(t, seed), t: t, names: map[string]bool{}, mend: map[string]func(){},
		forbidden: map[providertest.Who]map[string]bool{providertest.Alice: {}, providertest.Bob: {}}}
	h.provider = reach(t, h.Emulator)
	return &providertest.Harness{
		Provider: h,
		Request:  h.request,
		Set: func(object, value string) {
			h.PutSecret(vaultName, object, value)
			h.access(func() { h.names[object] = true })
		},
		Break: h.breakObject,
		Mend: func(object string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.mend[object]()
			h.hurry = false
		},
		Forbid: func(who providertest.Who, object string) {
			h.access(func() { h.forbidden[who][object] = true })
		},
		Hold: h.hold,
	}
}

// Fetch implements provider.Provider.
func (h *harness) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	h.mu.Lock()
	hurry := h.hurry
	h.mu.Unlock()
	if hurry {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	return h.provider.Fetch(ctx, req)
}

func (h *harness) request(who providertest.Who, objects ...string) *provider.Request {
	client, account := emulatortest.ClientID, "reader"
	if who == providertest.Bob {
		client, account = bobClient, "bob"
	}
	pod := provider.Pod{Namespace: "app", Name: "pod-of-" + string(who), UID: "uid-of-" + string(who), ServiceAccount: account}
	token := h.ServiceAccountToken("app", account, pod.Name, pod.UID, emulatortest.Audience, time.Hour)
	var entries []string
	for _, o := range objects {
		entries = append(entries, fmt.Sprintf("  - |\n    objectName: %s\n    objectType: secret\n", o))
	}
	return &provider.Request{
		Pod:         pod,
		Tokens:      map[string]provider.Token{emulatortest.Audience: {Value: provider.Sensitive(token), Proof: provider.ProvenByRequest}},
		Parameters:  map[string]string{"keyvaultName": vaultName, "tenantID": emulatortest.Tenant, "clientID": client, "objects": "array:\n" + strings.Join(entries, "")},
		DefaultMode: 0o644,
	}
}

// access lets both read everything but what is forbidden to one of them.
func (h *harness) access(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	var list []emulator.Access
	for who, client := range map[providertest.Who]string{providertest.Alice: emulatortest.ClientID, providertest.Bob: bobClient} {
		allowed := maps.Clone(h.names)
		maps.DeleteFunc(allowed, func(name string, _ bool) bool { return h.forbidden[who][name] })
		if len(allowed) > 0 {
			list = append(list, emulator.Access{App: client, Allow: []string{"secrets/get"}, Objects: slices.Sorted(maps.Keys(allowed))})
		}
	}
	if err := h.Server.SetAccess(vaultName, list); err != nil {
		h.t.Error(err)
	}
}

func (h *harness) breakObject(object string, kind provider.Kind) {
	f := emulator.Fault{Path: "/secrets/" + object}
	switch kind {
	case provider.NotFound:
		f.Do, f.Status = emulator.ActStatus, 404
	case provider.Denied:
		f.Do = emulator.ActForbidden
	case provider.Throttled:
		f.Do = emulator.ActThrottle
	default:
		f.Do, f.Status = emulator.ActStatus, 503
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mend[object] = h.SetFault(f)
	h.hurry = kind == provider.Throttled || kind == provider.Unavailable
}

func (h *harness) hold(object string) (<-chan struct{}, func()) {
	path := "/secrets/" + object
	release := h.SetFault(emulator.Fault{Do: emulator.ActHang, Path: path})
	before := h.Requests().Total(emulator.GroupVault)
	since := len(h.Server.Log())
	reached := make(chan struct{})
	go func() {
		for n := before + 1; h.Server.Await(h.t.Context(), emulator.GroupVault, n) == nil; n++ {
			if slices.ContainsFunc(h.Server.Log()[since:], func(e emulator.Entry) bool { return strings.HasPrefix(e.Path, path) }) {
				close(reached)
				return
			}
		}
	}()
	return reached, release
}
