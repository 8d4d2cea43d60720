package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// expected is what the vault of a checked demo holds. nil for the demo that people see.
type expected struct {
	Password, NextPassword string
	// Key is the public key, in PEM.
	Key string
}

// next is the value to rotate to.
func (e *expected) next() string {
	if e == nil {
		return "second-password"
	}
	return e.NextPassword
}

// writeSeed copies the example's seed into the demo's folder, for a check with random values in it.
func writeSeed(dir string) error {
	text, err := os.ReadFile(seed)
	if err != nil {
		return fmt.Errorf("the demo runs in the project's folder: %w", err)
	}
	if os.Getenv("KEYMOUNT_DEMO_CHECK") != "" {
		e, err := randomValues()
		if err != nil {
			return err
		}
		for _, r := range []struct{ old, new string }{
			{"value: first-password\n", "value: " + e.Password + "\n"},
			{"- name: signing-key\n", "- name: signing-key\n        publicKey: |\n          " + strings.ReplaceAll(strings.TrimSpace(e.Key), "\n", "\n          ") + "\n"},
		} {
			if strings.Count(string(text), r.old) != 1 {
				return fmt.Errorf("%s does not have %q exactly once", seed, r.old)
			}
			text = []byte(strings.Replace(string(text), r.old, r.new, 1))
		}
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "expected.json"), data, 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "seed.yaml"), text, 0o600)
}

func randomValues() (*expected, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return &expected{Password: rand.Text(), NextPassword: rand.Text(), Key: string(public)}, nil
}

// readExpected returns nil if the demo is not checked.
func readExpected(dir string) (*expected, error) {
	data, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	e := &expected{}
	return e, json.Unmarshal(data, e)
}

// checkMount compares everything after the first mount: requests, bytes, modes and versions.
func (e *expected) checkMount(ctx context.Context, target, table string) error {
	counts, err := requests(ctx)
	if err != nil {
		return err
	}
	for kind, want := range map[string]int{"secret-get": 2, "key-get": 1, "certificate-get": 1, "challenge": 0, "token": 1} {
		if counts[kind] != want {
			return fmt.Errorf("the first mount took %d requests of kind %s, want %d: %v", counts[kind], kind, want, counts)
		}
	}
	v := &reader{ctx: ctx}
	password, key, cert := v.get("secrets/db-password"), v.get("keys/signing-key"), v.get("certificates/web-tls")
	if v.err != nil {
		return fmt.Errorf("asking the vault itself: %w", v.err)
	}
	certPEM := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Cer}))
	for _, f := range []struct{ name, mode, content, version string }{
		{"db-password", "0644", e.Password, path.Base(password.ID)},
		{"signing-key.pem", "0644", e.Key, path.Base(key.Key.KID)},
		{"web-tls.crt", "0644", certPEM, path.Base(cert.ID)},
	} {
		if err := checkFile(target, f.name, f.mode, f.content); err != nil {
			return err
		}
		if err := checkRow(table, f.name, f.mode, f.version); err != nil {
			return err
		}
	}
	if err := checkRow(table, "web-tls.pem", "0600", path.Base(cert.ID)); err != nil {
		return err
	}
	if err := checkMode(target, "0700"); err != nil {
		return err
	}
	return checkPair(filepath.Join(target, "web-tls.pem"), certPEM)
}

// checkRotation compares what the watch did: whole refreshes, one token, and the new value.
func (e *expected) checkRotation(ctx context.Context, target string) error {
	if err := checkFile(target, "db-password", "0644", e.NextPassword); err != nil {
		return err
	}
	counts, err := requests(ctx)
	if err != nil {
		return err
	}
	// The mount of step 2 was counted and forgotten; the questions of checkMount are 1 token and 1 of each kind.
	rounds := counts["key-get"] - 1
	if rounds < 2 || counts["certificate-get"]-1 != rounds || counts["secret-get"]-1 != 2*rounds || counts["token"]-1 != 1 || counts["challenge"] != 0 {
		return fmt.Errorf("the watch took other requests than it needs: %v", counts)
	}
	return nil
}

func checkFile(target, name, mode, content string) error {
	file := filepath.Join(target, name)
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if string(data) != content {
		return fmt.Errorf("%s has %d bytes that are not the %d of the vault", name, len(data), len(content))
	}
	return checkMode(file, mode)
}

func checkMode(file, want string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != want {
		return fmt.Errorf("%s has mode %s, want %s", file, got, want)
	}
	return nil
}

func checkRow(table, name, mode, version string) error {
	for line := range strings.Lines(table) {
		if cells := strings.Fields(line); len(cells) == 5 && cells[0] == name {
			if cells[1] == mode && cells[4] == version {
				return nil
			}
			return fmt.Errorf("the table says %v, want mode %s and version %s", cells, mode, version)
		}
	}
	return fmt.Errorf("the table has no row for %s", name)
}

// checkPair checks that a file is a private key and its certificate, and nothing else.
func checkPair(file, certPEM string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if _, err := tls.X509KeyPair(data, data); err != nil { // which also compares the key with the certificate
		return fmt.Errorf("%s: %w", file, err)
	}
	key, rest := pem.Decode(data)
	if key.Type != "PRIVATE KEY" || string(rest) != certPEM || string(pem.EncodeToMemory(key))+certPEM != string(data) {
		return fmt.Errorf("%s is not exactly a PKCS #8 key and then the certificate of the vault", file)
	}
	return nil
}

// requests returns what the emulator has counted by kind, and sets it to zero.
func requests(ctx context.Context) (map[string]int, error) {
	out, err := capture(ctx, "", "keyvault-emulator", "requests", "--json", "--reset")
	if err != nil {
		return nil, err
	}
	var report struct{ Counts map[string]int }
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return nil, fmt.Errorf("reading the emulator's counts: %w", err)
	}
	return report.Counts, nil
}

// A reader asks the vault by its REST interface, so that keymount is not checked by its own code.
type reader struct {
	ctx   context.Context
	token string
	err   error // the first one
}

type object struct {
	ID  string `json:"id"`
	Cer []byte `json:"cer"` // DER
	Key struct {
		KID string `json:"kid"`
	} `json:"key"`
}

// get reads an object, with the first call's token.
func (r *reader) get(name string) object {
	var out object
	if r.token == "" && r.err == nil {
		var answer struct {
			Token string `json:"access_token"`
		}
		form := url.Values{"grant_type": {"client_credentials"}, "client_id": {clientID}, "client_secret": {clientSecret},
			"scope": {"https://vault.azure.net/.default"}}
		r.do(http.MethodPost, "https://login.microsoftonline.com/"+tenant+"/oauth2/v2.0/token", form.Encode(), &answer)
		r.token = answer.Token
	}
	r.do(http.MethodGet, "https://"+vault+".vault.azure.net/"+name+"?api-version=7.4", "", &out)
	return out
}

func (r *reader) do(method, address, body string, out any) {
	if r.err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		r.err = err
		return
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.err = err
		return
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		r.err = err
	case resp.StatusCode != http.StatusOK:
		r.err = fmt.Errorf("%s %s: %s", method, address, resp.Status)
	default:
		r.err = json.Unmarshal(data, out)
	}
}
