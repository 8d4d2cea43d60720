package plugin

import (
	"fmt"
	"net"

	"keymount/internal/socket"
)

// Listen opens an endpoint, "unix:///path" or "tcp://host:port", see socket.Endpoint.
//
// TCP carries secrets in the clear and anybody who reaches the port may ask: it is there because upstream has it.
func Listen(endpoint string) (net.Listener, error) {
	at, err := socket.ParseEndpoint(endpoint)
	if err != nil {
		return nil, fmt.Errorf("failed to parse endpoint: %w", err)
	}
	return at.Listen()
}
