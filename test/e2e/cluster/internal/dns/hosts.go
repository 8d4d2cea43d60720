//go:build integration && linux

// Package dns is the name server of a cluster. It answers from a file in the form of hosts(5), with wildcards, that it reads
// at each question, so that a test makes real host names mean what it wants, when it wants. What is not there does not exist:
// no question leaves the cluster.
//
// It imports nothing of the module. A Server answers concurrently.
package dns

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
)

// A table is what a hosts file says.
type table struct {
	exact    map[string][]netip.Addr
	wildcard map[string][]netip.Addr // by what follows "*."
}

// parseHosts reads lines of an address and names, "#" starts a comment. The name "*.x" stands for all names below x, at any
// depth. IPv6 addresses are accepted and not answered, as the cluster has none.
func parseHosts(text string) (table, error) {
	t := table{exact: map[string][]netip.Addr{}, wildcard: map[string][]netip.Addr{}}
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		address, err := netip.ParseAddr(fields[0])
		if err != nil {
			return table{}, fmt.Errorf("line %d: %w", i+1, err)
		}
		if len(fields) == 1 {
			return table{}, fmt.Errorf("line %d: no name follows the address %s", i+1, address)
		}
		for _, name := range fields[1:] {
			name = normal(name)
			if below, ok := strings.CutPrefix(name, "*."); ok {
				t.wildcard[below] = append(t.wildcard[below], address)
				continue
			}
			if strings.Contains(name, "*") {
				return table{}, fmt.Errorf("line %d: %q: a wildcard is the whole first label, as in *.vault.azure.net", i+1, name)
			}
			t.exact[name] = append(t.exact[name], address)
		}
	}
	return t, nil
}

// lookup returns a name's addresses: its own lines first, else those of the longest wildcard.
func (t table) lookup(name string) (addresses []netip.Addr, found bool) {
	name = normal(name)
	if addresses, found = t.exact[name]; found {
		return addresses, true
	}
	for {
		_, below, ok := strings.Cut(name, ".")
		if !ok {
			return nil, false
		}
		if addresses, found = t.wildcard[below]; found {
			return addresses, true
		}
		name = below
	}
}

func normal(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// readHosts reads the file. No file is an empty one.
func readHosts(path string) (table, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return table{}, nil
	}
	if err != nil {
		return table{}, fmt.Errorf("reading the hosts file: %w", err)
	}
	t, err := parseHosts(string(text))
	if err != nil {
		return table{}, fmt.Errorf("reading the hosts file %s: %w", path, err)
	}
	return t, nil
}
