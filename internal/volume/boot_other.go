//go:build !linux && !darwin

package volume

import (
	"errors"
	"fmt"
)

// BootID returns what tells this run of the system from earlier ones: after a reboot every mount is gone, whatever a
// record says. errors.ErrUnsupported on systems that have no such thing.
func BootID() (string, error) {
	return "", fmt.Errorf("reading boot id: %w", errors.ErrUnsupported)
}
