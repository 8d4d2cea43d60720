package azure_test

import (
	"testing"

	"keymount/internal/azure"
	"keymount/internal/azure/azuretest"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
	"keymount/internal/provider/providertest"
)

// The same suite runs against the program keymount-azure, in its own package.
func TestSuite(t *testing.T) {
	t.Parallel()
	for name, reach := range map[string]azuretest.Reach{"in process": inProcess, "behind its socket": behindSocket} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			providertest.Run(t, func(t *testing.T) *providertest.Harness { return azuretest.NewHarness(t, reach) })
		})
	}
}

func inProcess(t *testing.T, e *emulatortest.Emulator) provider.Provider {
	p, err := azure.New(azure.Config{Transport: e.Transport()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func behindSocket(t *testing.T, e *emulatortest.Emulator) provider.Provider {
	return serve(t, inProcess(t, e))
}
