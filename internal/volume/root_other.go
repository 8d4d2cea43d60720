//go:build !linux

package volume

import "os"

func (v *volume) exchange(a, b string) error { return v.exchangeByRename(a, b) }

// isMountRoot is known on Linux only.
func isMountRoot(*os.File) (bool, error) { return false, nil }

// openRootAt opens the folder f, which is name in root, as a root.
func openRootAt(root *os.Root, name string, _ *os.File) (*os.Root, error) { return root.OpenRoot(name) }
