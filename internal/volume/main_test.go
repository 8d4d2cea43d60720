//go:build linux

package volume_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestMain lets the test binary be three things: the writer that the kill tests end, the tests in a private mount namespace
// (as root), and the tests.
func TestMain(m *testing.M) {
	if os.Getenv(killChildEnv) != "" {
		if err := killChild(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	fuzzing := slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzz") })
	if os.Getuid() == 0 && runtime.GOOS == "linux" && os.Getenv(namespaceEnv) == "" && !fuzzing { // fuzz workers talk over files that a second process has not
		os.Exit(inNamespace())
	}
	os.Exit(m.Run())
}

const (
	killChildEnv = "KEYMOUNT_TEST_KILL_CHILD"
	namespaceEnv = "KEYMOUNT_TEST_NAMESPACE"
)
