package main

import (
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
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
	ca     string // the file with the authority's certificate; it is removed at the end
	secret string
	url    string
}

// hostOptions are what flags say of a host; all may be empty.
type hostOptions struct {
	seedFile string // the example if empty
	listen   string // 127.0.0.1 and a free port if empty
	caFile   string // a file of a temporary folder if empty
}

func startHost(opt hostOptions) (*host, error) {
	seed, err := readSeed(opt.seedFile)
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
	if opt.listen == "" {
		h.front, err = front.Start(h.server)
	} else {
		h.front, err = front.StartAt(h.server, opt.listen)
	}
	if err != nil {
		return nil, err
	}
	if err := h.writeCA(opt.caFile); err != nil {
		return nil, err
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

// writeCA writes the certificate that clients are to trust. A file that is there already is left alone: it may be the system's own list.
func (h *host) writeCA(file string) (err error) {
	mode := os.FileMode(0o644) // it is no secret, and others are to read it
	if file == "" {
		if h.dir, err = os.MkdirTemp("", "keyvault-emulator-"); err != nil {
			return fmt.Errorf("making a folder for the CA certificate: %w", err)
		}
		file, mode = filepath.Join(h.dir, "ca.pem"), 0o600
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("writing the CA certificate: %s is there already: remove it, or give --ca-file another name", file)
	}
	if err != nil {
		return fmt.Errorf("writing the CA certificate: %w", err)
	}
	h.ca = file
	_, err = f.Write(h.front.CertPEM())
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing the CA certificate: %w", err)
	}
	return nil
}

// env is what a program needs to reach the emulator, and the other commands to control it.
func (h *host) env() []string {
	return append(front.Env(h.front.ProxyURL(), h.ca), h.control()...)
}

// control is what the other commands need to control it.
func (h *host) control() []string {
	return []string{adminVariable + "=" + h.url, secretVariable + "=" + h.secret}
}

// stop ends everything, requests in flight included, and removes the certificate.
func (h *host) stop() {
	h.server.ClearFault(0)
	if h.admin != nil {
		h.admin.Close()
	}
	if h.front != nil {
		h.front.Stop()
	}
	if h.ca != "" {
		os.Remove(h.ca)
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
