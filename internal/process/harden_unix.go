//go:build unix && !linux

package process

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden sets RLIMIT_CORE to 0, so that a crash writes no secrets to disk.
func Harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switching core dumps off: %w", err)
	}
	return nil
}
