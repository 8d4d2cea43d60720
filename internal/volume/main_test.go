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
	if info, err := os.Stat(memory); err == nil && info.IsDir() && os.Getenv("TMPDIR") == "" {
		os.Setenv("TMPDIR", memory) // thousands of small files: ten times as fast as a disk
	}
	fuzzing := slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzz") })
	if os.Getuid() == 0 && runtime.GOOS == "linux" && os.Getenv(namespaceEnv) == "" && !fuzzing { // fuzz workers talk over files that a second process has not
		os.Exit(inNamespace())
	}
	os.Exit(m.Run())
}

const (
	memory       = "/dev/shm"
	killChildEnv = "KEYMOUNT_TEST_KILL_CHILD"
	namespaceEnv = "KEYMOUNT_TEST_NAMESPACE"
)
