package plugin

import (
	"fmt"
	"net"
	"strings"
)

// Listen opens an endpoint, "unix:///path" or "tcp://host:port"; the scheme may be written in any case. A unix socket is
// for its owner only (mode 0700), from the moment that it has its name; one that a former process left, or still serves, is
// replaced, and is removed at the end if it is still ours. A path that holds anything but a socket is an error.
//
// TCP carries secrets in the clear and anybody who reaches the port may ask: it is there because upstream has it.
func Listen(endpoint string) (net.Listener, error) {
	network, address, err := parseEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		return listenUnix(address)
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", endpoint, err)
	}
	return l, nil
}

func parseEndpoint(endpoint string) (network, address string, err error) {
	scheme, address, found := strings.Cut(endpoint, "://")
	network = strings.ToLower(scheme)
	if !found || address == "" || (network != "unix" && network != "tcp") {
		return "", "", fmt.Errorf("failed to parse endpoint: invalid endpoint: %s (want unix:///path or tcp://host:port)", endpoint)
	}
	if network == "unix" {
		address = absolute(address)
	}
	return network, address, nil
}
