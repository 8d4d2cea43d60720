package vault_test

import (
	"net/http"
	"testing"

	"keymount/internal/azure/vault"
)

// BenchmarkSharedRead is what a pod pays for an object that another one has just read.
func BenchmarkSharedRead(b *testing.B) {
	f := newFake(func(req *http.Request, _ int) (*http.Response, error) { return secret(req, "value"), nil })
	source, client := f.client(func(c *vault.Config) { c.ShareFor = 1 << 40 })
	who := principal(b, source, "c", "s")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Secret(b.Context(), who, vaultURL, "one", ""); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead is a read with a warm token and no network.
func BenchmarkRead(b *testing.B) {
	f := newFake(func(req *http.Request, _ int) (*http.Response, error) { return secret(req, "value"), nil })
	source, client := f.client(func(c *vault.Config) { c.ShareFor = 0 })
	who := principal(b, source, "c", "s")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Secret(b.Context(), who, vaultURL, "one", ""); err != nil {
			b.Fatal(err)
		}
	}
}
