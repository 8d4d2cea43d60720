//go:build linux

package volume_test

import (
	"fmt"
	"os"
	"testing"

	"keymount/internal/volume/volumetest"
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
	os.Exit(volumetest.Main(m))
}

const (
	memory       = "/dev/shm"
	killChildEnv = "KEYMOUNT_TEST_KILL_CHILD"
)
