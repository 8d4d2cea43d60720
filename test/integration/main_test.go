//go:build integration && linux

// Package integration runs the node daemon, and those of its packages that talk to the API server, against a real one.
//
// All tests of this package share one server and keep apart by namespaces. As root they run in a mount namespace of their
// own; without root those that mount are skipped, and CI counts them.
package integration

import (
	"os"
	"path/filepath"
	"testing"

	"keymount/internal/volume/volumetest"
	"keymount/test/integration/apiserver"
	"keymount/test/integration/driver"
)

// api is the server of all tests of this package.
var api *apiserver.Server

func TestMain(m *testing.M) {
	os.Exit(volumetest.Run(func() int {
		defer driver.RemoveBinary()
		return apiserver.Main(m, func(s *apiserver.Server) { api = s })
	}))
}

const repository = "../.."

// install applies the definitions and the rights of the driver, which any number of tests may do. The rights of synced
// Secrets are not among them: tests of those give them to accounts of their own.
func install(t testing.TB) {
	t.Helper()
	rbac := filepath.Join(repository, "deploy/rbac")
	api.Apply(t, filepath.Join(repository, "api/crds/*.yaml"),
		filepath.Join(rbac, "rbac-secretproviderclass*.yaml"), filepath.Join(rbac, "rbac-keymount.yaml"))
}
