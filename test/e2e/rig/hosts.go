//go:build integration && linux

package rig

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
)

// hosts is the file that the cluster's DNS server answers from.
type hosts struct {
	file  string
	names func() []string

	mu sync.Mutex
}

// write leads every name of the emulator to its address. The file is replaced whole, since the server may read it at any moment.
func (h *hosts) write() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	ip, _, err := net.SplitHostPort(Address)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, name := range h.names() {
		fmt.Fprintf(&b, "%s %s\n", ip, name)
	}
	if err := os.WriteFile(h.file+".new", []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("writing the cluster's host names: %w", err)
	}
	if err := os.Rename(h.file+".new", h.file); err != nil {
		return fmt.Errorf("writing the cluster's host names: %w", err)
	}
	return nil
}
