//go:build integration && linux

package sanity

import (
	"os"
	"testing"

	"keymount/internal/volume/volumetest"
	"keymount/test/integration/apiserver"
	"keymount/test/integration/driver"
)

// api is the server of this package's tests.
var api *apiserver.Server

// TestMain runs the tests in a mount namespace of their own. Ginkgo runs its specs once per process, so the suite runs in
// processes that the test starts from its own binary; they find their task in the environment, and run nothing else.
func TestMain(m *testing.M) {
	os.Exit(volumetest.Run(func() int {
		if text := os.Getenv(taskEnv); text != "" {
			return runSuite(text)
		}
		defer driver.RemoveBinary()
		return apiserver.Main(m, func(s *apiserver.Server) { api = s })
	}))
}
