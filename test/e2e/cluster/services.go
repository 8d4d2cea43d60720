//go:build integration && linux

package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"keymount/test/e2e/cluster/internal/dns"
	"keymount/test/e2e/cluster/internal/layout"
	"keymount/test/e2e/cluster/internal/machine"
	"keymount/test/e2e/cluster/internal/network"
)

// dnsCommand is the component of cp that answers the names of the hosts file.
func dnsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "dns HOSTS", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			conn, err := net.ListenPacket("udp4", layout.GatewayIP+":53")
			if err != nil {
				return fmt.Errorf("listening for DNS questions: %w", err)
			}
			api := netip.MustParseAddr(layout.APIServer)
			fixed := map[string]netip.Addr{"kubernetes.default.svc": api, "kubernetes.default.svc." + layout.Domain: api}
			return dns.New(args[0], fixed, logger()).Serve(c.Context(), conn)
		},
	}
}

// proxyCommand is the component of cp that carries connections from the outer machine to the API server.
func proxyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "proxy TARGET", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			file := os.NewFile(machine.ListenerFD, "listener")
			listener, err := net.FileListener(file)
			if err != nil {
				return fmt.Errorf("taking the outer machine's listener: %w", err)
			}
			file.Close()
			return network.Forward(c.Context(), listener, args[0], logger())
		},
	}
}

func logger() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }
