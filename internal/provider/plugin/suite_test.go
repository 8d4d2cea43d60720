package plugin_test

import (
	"io"
	"testing"

	"keymount/internal/provider/providertest"
)

// The suite through a real socket: the adapter neither adds nor loses anything that the contract speaks of.
func TestSuiteThroughSocket(t *testing.T) {
	providertest.Run(t, func(t *testing.T) *providertest.Harness {
		fake := providertest.NewFake()
		socket := socketPath(t)
		serve(t, socket, fake, io.Discard)
		h := fake.Harness()
		h.Provider = client(t, socket)
		return h
	})
}
