//go:build !linux

package volume

import (
	"errors"
	"fmt"

	"keymount/internal/provider"
)

// Mount is for Linux.
func (Tmpfs) Mount(string) error { return unsupported() }

// Unmount is for Linux.
func (Tmpfs) Unmount(string) error { return unsupported() }

// Inspect is for Linux.
func (Tmpfs) Inspect(string) (Status, error) { return Status{}, unsupported() }

func unsupported() error { return fmt.Errorf("mounting a tmpfs: %w", errors.ErrUnsupported) }

// Read is for Linux.
func (Tmpfs) Read(string, []string, int) (map[string]provider.Contents, error) {
	return nil, unsupported()
}
