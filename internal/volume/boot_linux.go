package volume

import (
	"fmt"
	"os"
	"strings"
)

// BootID returns what tells this run of the system from earlier ones: after a reboot every mount is gone, whatever a
// record says. errors.ErrUnsupported on systems that have no such thing.
func BootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("reading boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
