package azure_test

import (
	"testing"
	"time"

	"keymount/internal/azure"
	"keymount/internal/emulator"
	"keymount/internal/provider"
)

// What the provider says of itself is what the other side has seen.
func TestMeasure(t *testing.T) {
	r := start(t, func(c *azure.Config) { c.ShareFor = time.Hour })
	r.PutSecret(vaultName, "one", "1")
	r.PutSecret(vaultName, "two", "2")
	objects := array(entry("secret", "one"), entry("secret", "two"))
	r.mount(t, objects)
	r.mount(t, objects)
	r.failures(t, r.request(array(entry("secret", "absent"))))
	want := provider.Measures{Reads: 3, SharedReads: 2, Tokens: 1}
	if got := r.inner.Measure(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if n := r.Requests()[emulator.KindSecretGet]; n != int(want.Reads) {
		t.Errorf("the vault has seen %d requests: %v", n, r.Requests())
	}
}
