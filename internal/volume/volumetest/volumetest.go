// Package volumetest runs tests that mount, each package's in a mount namespace of its own, whose mounts nobody else sees and
// which end with the test process. It is for tests only and imports nothing of the module.
package volumetest

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// namespaceEnv marks the process that is inside of the namespace.
const namespaceEnv = "KEYMOUNT_TEST_NAMESPACE"

// Main runs a package's tests, as root on Linux in a mount namespace of their own, and returns the exit code for os.Exit.
func Main(m *testing.M) int { return Run(m.Run) }

// Run is Main for a package that has more to do around its tests.
func Run(tests func() int) int {
	// Fuzz workers talk over files that a second process has not.
	fuzzing := slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzz") })
	if os.Getuid() == 0 && os.Getenv(namespaceEnv) == "" && !fuzzing {
		if code, ran := inNamespace(); ran {
			return code
		}
	}
	return tests()
}

// NeedRoot skips a test that nobody but root can run. Such tests are named TestRoot..., and CI counts them.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if os.Getenv(namespaceEnv) == "" {
		t.Fatal("runs as root outside of a namespace: TestMain must call volumetest.Main")
	}
}
