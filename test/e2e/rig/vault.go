//go:build integration && linux

package rig

import (
	"slices"
	"time"

	"keymount/internal/emulator"
)

// Load adds to the emulator what a seed says, and leads the cluster's DNS to it.
func (s *Scenario) Load(seed emulator.Seed) {
	s.Helper()
	if err := s.Emulator.Server.Load(seed); err != nil {
		s.Fatalf("loading a seed: %v", err)
	}
	if err := s.hosts.write(); err != nil {
		s.Fatal(err)
	}
}

// PutSecret stores a new version of a secret in the scenario's vault and returns its id.
func (s *Scenario) PutSecret(name, value string) string {
	s.Helper()
	return s.put(s.Emulator.Server.PutSecret(s.Vault, emulator.Secret{Name: name, SecretVersion: emulator.SecretVersion{Value: value}}))
}

// PutHistory stores versions of a secret, the oldest first, each made an hour after the one before: the service tells times of making to the second only.
func (s *Scenario) PutHistory(name string, values ...string) {
	s.Helper()
	in := emulator.Secret{Name: name}
	for i, value := range values {
		in.Versions = append(in.Versions, emulator.SecretVersion{Value: value, Created: time.Now().Add(time.Duration(i-len(values)) * time.Hour)})
	}
	s.put(s.Emulator.Server.PutSecret(s.Vault, in))
}

// PutKey makes a key, or a new version of it, and returns its id.
func (s *Scenario) PutKey(key emulator.Key) string {
	s.Helper()
	return s.put(s.Emulator.Server.PutKey(s.Vault, key))
}

// PutCertificate makes a certificate with its secret and key, or a new version of it, and returns its id.
func (s *Scenario) PutCertificate(certificate emulator.Certificate) string {
	s.Helper()
	return s.put(s.Emulator.Server.PutCertificate(s.Vault, certificate))
}

func (s *Scenario) put(version string, err error) string {
	s.Helper()
	if err != nil {
		s.Fatalf("storing in vault %s: %v", s.Vault, err)
	}
	return version
}

// Requests is how many requests of the kinds, such as emulator.KindSecretGet, the scenario's vault has had, of all kinds when none is given.
func (s *Scenario) Requests(kinds ...string) int {
	n := 0
	for _, e := range s.Emulator.Server.Log() {
		if e.Host == s.Vault+".vault.azure.net" && (len(kinds) == 0 || slices.Contains(kinds, e.Kind)) {
			n++
		}
	}
	return n
}

// Tokens is how many access tokens the scenario's application has been given.
func (s *Scenario) Tokens() int {
	n := 0
	for _, e := range s.Emulator.Server.Log() {
		if e.Kind == emulator.KindToken && e.App == s.ClientID && e.Status == 200 {
			n++
		}
	}
	return n
}
