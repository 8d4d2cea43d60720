package main

import (
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"keymount/internal/emulator"
	"keymount/internal/emulator/front"
)

//go:embed seed.yaml
var exampleSeed string

// Names of the variables by which the other commands find a running emulator.
const (
	adminVariable  = "KEYVAULT_EMULATOR_ADMIN"
	secretVariable = "KEYVAULT_EMULATOR_SECRET"
)

// A host is a running emulator with its control listener and its folder.
type host struct {
	server *emulator.Server
	front  *front.Front
	admin  *http.Server
	dir    string
	secret string
	url    string
}

// startHost runs an emulator with the seed file, or the example if the name is empty.
func startHost(seedFile string) (*host, error) {
	seed, err := readSeed(seedFile)
	if err != nil {
		return nil, err
	}
	h := &host{server: emulator.New(emulator.Options{})}
	if err := h.server.Load(seed); err != nil {
		return nil, fmt.Errorf("the seed is wrong:\n%w", err)
	}
	done := false
	defer func() {
		if !done {
			h.stop()
		}
	}()
	if h.front, err = front.Start(h.server); err != nil {
		return nil, err
	}
	if h.dir, err = os.MkdirTemp("", "keyvault-emulator-"); err != nil {
		return nil, fmt.Errorf("making a folder for the CA certificate: %w", err)
	}
	if err := os.WriteFile(h.caFile(), h.front.CertPEM(), 0o600); err != nil {
		return nil, fmt.Errorf("writing the CA certificate: %w", err)
	}
	if err := h.startAdmin(); err != nil {
		return nil, err
	}
	done = true
	return h, nil
}

func readSeed(file string) (emulator.Seed, error) {
	if file == "" {
		return emulator.ParseSeed([]byte(exampleSeed))
	}
	return emulator.ReadSeed(file)
}

func (h *host) startAdmin() error {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	h.secret = hex.EncodeToString(b[:])
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening for control: %w", err)
	}
	h.url = "http://" + l.Addr().String()
	h.admin = &http.Server{Handler: h.server.AdminHandler(h.secret), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		_ = h.admin.Serve(l) // returns when stop closes it
	}()
	return nil
}

func (h *host) caFile() string { return filepath.Join(h.dir, "ca.pem") }

// env is what a program needs to reach the emulator, and the other commands to control it.
func (h *host) env() []string {
	return append(front.Env(h.front.ProxyURL(), h.caFile()), adminVariable+"="+h.url, secretVariable+"="+h.secret)
}

// stop ends everything, requests in flight included, and removes the folder.
func (h *host) stop() {
	h.server.ClearFault(0)
	if h.admin != nil {
		h.admin.Close()
	}
	if h.front != nil {
		h.front.Stop()
	}
	if h.dir != "" {
		os.RemoveAll(h.dir)
	}
}

func newSeed(std streams) *cobra.Command {
	return &cobra.Command{
		Use:   "seed",
		Short: "Print the example seed, to start your own from",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(std.out, exampleSeed)
			return err
		},
	}
}
