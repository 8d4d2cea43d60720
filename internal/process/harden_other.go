//go:build !unix

package process

// Harden does nothing here: the system writes no core dumps unless an administrator sets that up.
func Harden() error { return nil }
