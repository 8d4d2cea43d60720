package azure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keymount/internal/azure/params"
	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
)

// Calls within calls share the places: whatever a class asks for, a mount is so many goroutines and no more.
func TestWorkOfAMountIsBounded(t *testing.T) {
	const most = 7
	log, helpers := slog.New(slog.DiscardHandler), make(chan struct{}, most-1)
	var now, peak, ran atomic.Int64
	_, errs := inParallel(log, helpers, 100, func(int) ([]int, error) {
		_, errs := inParallel(log, helpers, 20, func(i int) (int, error) {
			for n, old := now.Add(1), peak.Load(); n > old && !peak.CompareAndSwap(old, n); old = peak.Load() {
			}
			time.Sleep(10 * time.Microsecond) // so that others get a chance to be too many
			now.Add(-1)
			ran.Add(1)
			return i, fmt.Errorf("%d", i)
		})
		return nil, errors.Join(errs...)
	})
	if ran.Load() != 2000 || peak.Load() > most || peak.Load() < 2 {
		t.Errorf("%d ran, %d at a time; want 2000, 2 to %d at a time", ran.Load(), peak.Load(), most)
	}
	for i, err := range errs {
		if n := strings.Count(err.Error(), "\n") + 1; n != 20 {
			t.Fatalf("call %d has %d failures, want 20", i, n)
		}
	}
	if len(helpers) != 0 {
		t.Errorf("%d places are not given back", len(helpers))
	}
}

// One who has many pods with all that a vault can hold gets it a few pods at a time; others' volumes of the usual size
// wait for nothing.
func TestLargeMountsTakeTurns(t *testing.T) {
	e := emulatortest.Start(t, emulatortest.DefaultSeed("myvault"))
	p, err := New(Config{Transport: e.Transport()})
	if err != nil {
		t.Fatal(err)
	}
	version := e.PutSecret("myvault", "big", "x")
	e.SetFault(emulator.Fault{Do: emulator.ActBody, Path: "/secrets/big", Body: fmt.Sprintf(
		`{"value":%q,"id":"https://myvault.vault.azure.net/secrets/big/%s"}`, strings.Repeat("x", 512<<10), version)})
	fetch := func(objects int) error {
		_, err := p.Fetch(t.Context(), asking(objects, func(i int) string { return fmt.Sprintf("big, objectAlias: f%d", i) }))
		return err
	}
	for range maxLarge {
		p.places <- struct{}{}
	}
	if err := fetch(8); err != nil {
		t.Errorf("4 MiB: %v", err)
	}
	ended := make(chan error, 1)
	// As many as are read at once may be on their way when it shows how large they are.
	go func() { ended <- fetch(minParallel + 20) }()
	select {
	case err := <-ended:
		t.Fatalf("42 MiB while others have all places: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	<-p.places
	if err := <-ended; err != nil {
		t.Errorf("42 MiB with a place: %v", err)
	}
	if len(p.places) != maxLarge-1 {
		t.Errorf("%d places are taken, want %d", len(p.places), maxLarge-1)
	}

	p.places <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := &mount{Provider: p, spec: &params.Spec{Vault: "myvault"}}
	m.size.Store(largeMount + 1)
	err = m.room(ctx, &params.Object{Kind: params.Secret, Name: "big"})
	if provider.KindOf(err) != provider.Unavailable || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), `secret "big"`) ||
		!strings.Contains(err.Error(), "waiting for other large mounts") {
		t.Errorf("a large mount that waits in vain: %v", err)
	}
}

// asking asks for secrets.
func asking(objects int, name func(i int) string) *provider.Request {
	list := "array:\n"
	for i := range objects {
		list += "- {objectType: secret, objectName: " + name(i) + "}\n"
	}
	return &provider.Request{
		Pod:        provider.Pod{Namespace: "app", Name: "p", UID: "uid", ServiceAccount: "reader"},
		Secrets:    map[string]provider.Sensitive{"clientid": emulatortest.ClientID, "clientsecret": emulatortest.ClientSecret},
		Parameters: map[string]string{"keyvaultName": "myvault", "tenantID": emulatortest.Tenant, "objects": list},
	}
}

// Of what a mount has not begun to read when its time is over, nothing is asked for any more.
func TestNothingIsReadAfterTheEnd(t *testing.T) {
	e := emulatortest.Start(t, emulatortest.DefaultSeed("myvault"))
	p, err := New(Config{Transport: e.Transport()})
	if err != nil {
		t.Fatal(err)
	}
	e.SetFault(emulator.Fault{Do: emulator.ActHang, Kind: emulator.GroupVault})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		e.Await(emulator.GroupVault, 32)
		cancel()
	}()
	_, err = p.Fetch(ctx, asking(300, func(i int) string { return fmt.Sprintf("o%d", i) }))
	if all := provider.ErrorsOf(err); len(all) != maxSaid+1 || provider.KindOf(err) != provider.Unavailable || !errors.Is(err, context.Canceled) {
		t.Errorf("%d failures: %v", len(all), err)
	}
	if n := e.Requests().Total(emulator.GroupVault); n > minParallel {
		t.Errorf("%d requests to the vault", n)
	}
}
