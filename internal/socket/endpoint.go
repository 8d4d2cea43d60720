// Package socket is where the programs serve: an endpoint as flags name it, and a unix socket that is for its owner only,
// replaces what a former process left, and never removes what a later one has put there; and how many connections a server
// may have that answers everybody. It imports nothing of the module.
// Endpoints are values; a listener may be used from any number of goroutines.
package socket

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

// An Endpoint is where a socket is served: "unix:///path" or "tcp://host:port", the scheme in any case. A unix path is
// absolute, whether or not it is written so: unix://tmp/csi.sock means /tmp/csi.sock, as upstream. The zero value is no
// endpoint. Endpoints can be compared.
type Endpoint struct {
	network, address string
}

// ParseEndpoint reads an endpoint.
func ParseEndpoint(text string) (Endpoint, error) {
	scheme, address, found := strings.Cut(text, "://")
	network := strings.ToLower(scheme)
	if !found || address == "" || (network != "unix" && network != "tcp") {
		return Endpoint{}, fmt.Errorf("invalid endpoint: %s (want unix:///path or tcp://host:port)", text)
	}
	if network == "unix" {
		return Endpoint{network, absolute(address)}, nil
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return Endpoint{}, fmt.Errorf("invalid endpoint: %s (want tcp://host:port): %w", text, err)
	}
	return Endpoint{network, address}, nil
}

// IsUnix tells whether the endpoint is a unix socket, which only this machine reaches.
func (e Endpoint) IsUnix() bool { return e.network == "unix" }

// Folder returns the folder of a unix socket, and "" for another endpoint.
func (e Endpoint) Folder() string {
	if !e.IsUnix() {
		return ""
	}
	return filepath.Dir(e.address)
}

// String returns the endpoint as ParseEndpoint takes it, and "" for none.
func (e Endpoint) String() string {
	if e == (Endpoint{}) {
		return ""
	}
	return e.network + "://" + e.address
}

// MarshalText implements encoding.TextMarshaler.
func (e Endpoint) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler, so that an endpoint can be a flag.
func (e *Endpoint) UnmarshalText(text []byte) (err error) {
	*e, err = ParseEndpoint(string(text))
	return err
}

// Dial connects to the endpoint.
func (e Endpoint) Dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, e.network, e.address)
}

// Listen opens the endpoint. A unix socket is for its owner only (mode 0700), from the moment that it has its name; one
// that a former process left, or still serves, is replaced, and it is removed at the end if it is still ours. A path that
// holds anything but a socket is an error.
func (e Endpoint) Listen() (net.Listener, error) {
	if e.IsUnix() {
		l, err := ListenUnix(e.address)
		if err != nil {
			return nil, err
		}
		return l, nil
	}
	l, err := net.Listen(e.network, e.address)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", e, err)
	}
	return l, nil
}
