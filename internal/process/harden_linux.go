package process

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden sets RLIMIT_CORE to 0 and makes the process not dumpable (prctl(2) PR_SET_DUMPABLE, which also closes
// /proc/PID/mem and ptrace to other processes of the same user). On other systems than Linux it does what the system has.
func Harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switching core dumps off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process not dumpable: %w", err)
	}
	return nil
}
