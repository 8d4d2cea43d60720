package emulator_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
)

// Everything at once: the race detector is the judge, and no answer is a 5xx.
func TestConcurrentUse(t *testing.T) {
	a := newAPI(t, func(s *emulator.Seed) {
		s.Vaults[0].Certificates = []emulator.Certificate{{Name: "c", KeyType: "EC", Parents: 1}}
		s.Vaults[0].Keys = []emulator.Key{{Name: "k", Type: "EC"}}
	})
	steps := []func(i int) *int{
		func(i int) *int {
			return &a.do("PUT", fmt.Sprintf("/secrets/s%d", i%3), `{"value":"v","tags":{"a":"b"}}`).Code
		},
		func(i int) *int { return &a.do("GET", fmt.Sprintf("/secrets/s%d", i%3), "").Code },
		func(i int) *int { return &a.do("DELETE", fmt.Sprintf("/secrets/s%d", i%3), "").Code },
		func(i int) *int { return &a.do("POST", fmt.Sprintf("/deletedsecrets/s%d/recover", i%3), "").Code },
		func(int) *int { return &a.do("GET", "/secrets?maxresults=2", "").Code },
		func(int) *int { return &a.do("GET", "/certificates/c", "").Code },
		func(int) *int { return &a.do("PATCH", "/certificates/c/policy", `{"key_props":{"kty":"EC"}}`).Code },
		func(int) *int {
			return &a.do("PATCH", "/certificates/c", `{"tags":{"x":"y"},"attributes":{"enabled":true}}`).Code
		},
		func(int) *int { return &a.do("GET", "/keys/c", "").Code },
	}
	control := []func() error{
		func() error { _, err := a.RotateCertificate("myvault", "c"); return err },
		func() error { _, err := a.RotateKey("myvault", "k"); return err },
		func() error { return a.SetAccess("myvault", nil) },
		func() error { return a.SetLatency(emulator.GroupVault, 0) },
		func() error {
			id, err := a.SetFault(emulator.Fault{Do: emulator.ActForbidden, Kind: emulator.KindKeyGet, Times: 1})
			a.ClearFault(id)
			return err
		},
		func() error { a.Requests(); a.Log(); a.ResetRequests(); return nil },
		func() error { return a.SetEnabled("myvault", "certificates", "c", "", true) },
		func() error {
			return a.Load(emulator.Seed{Vaults: []emulator.Vault{{Name: "myvault", Tenant: emulatortest.Tenant}}})
		},
	}
	var wg sync.WaitGroup
	for _, step := range steps {
		wg.Go(func() {
			for i := range 15 {
				if code := *step(i); code >= http.StatusInternalServerError {
					t.Errorf("status %d", code)
				}
			}
		})
	}
	for _, step := range control {
		wg.Go(func() {
			for range 15 {
				if err := step(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
