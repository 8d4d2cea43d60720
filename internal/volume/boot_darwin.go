package volume

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// BootID returns what tells this run of the system from earlier ones: after a reboot every mount is gone, whatever a
// record says. errors.ErrUnsupported on systems that have no such thing.
func BootID() (string, error) {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return "", fmt.Errorf("reading boot id: %w", err)
	}
	return id, nil
}
