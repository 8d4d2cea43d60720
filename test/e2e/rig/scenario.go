//go:build integration && linux

package rig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keymount/internal/emulator"
)

// Bound is how long a scenario waits for something that should happen within seconds, on a machine that is busy with others.
const Bound = 90 * time.Second

// A Scenario is one test with what it has to itself. Manifests are templates that see its fields, as in {{.Vault}}.
//
// Before it begins there are: the namespace, with a Secret "principal" of the application's credentials; the vault, empty, which nobody but
// the application may read; and the application, which trusts the namespace's service account "reader", made too.
type Scenario struct {
	*testing.T
	*Suite

	Namespace    string
	Vault        string // as in https://VAULT.vault.azure.net
	Tenant       string
	ClientID     string
	ClientSecret string
	Busybox      string // an image with a shell
}

// scenario makes what a scenario has to itself.
func (s *Suite) scenario(t *testing.T, name string) *Scenario {
	t.Helper()
	s.mu.Lock()
	s.count++
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", name, s.count, time.Now().UnixNano()))
	s.mu.Unlock()
	id := hex.EncodeToString(sum[:])
	sc := &Scenario{T: t, Suite: s, Tenant: Tenant, Busybox: Busybox,
		Namespace: namespacePrefix + kebab(name) + "-" + id[:4],
		Vault:     "kv-" + id[:16],
		ClientID:  id[:8] + "-" + id[8:12] + "-4" + id[12:15] + "-8" + id[15:18] + "-" + id[18:30], ClientSecret: "secret-" + id[30:50]}
	sc.Load(emulator.Seed{
		Tenants: []emulator.Tenant{{ID: Tenant, Apps: []emulator.App{{ClientID: sc.ClientID, ClientSecret: sc.ClientSecret,
			Federated: []emulator.Federated{{Issuer: Issuer, Subject: "system:serviceaccount:" + sc.Namespace + ":reader"}}}}}},
		Vaults: []emulator.Vault{{Name: sc.Vault, Access: []emulator.Access{{App: sc.ClientID, Allow: []string{"*"}}}}},
	})
	t.Cleanup(sc.end)
	sc.Apply(`
apiVersion: v1
kind: Namespace
metadata: {name: "{{.Namespace}}"}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: v1
kind: Secret
metadata: {name: principal}
stringData: {clientid: "{{.ClientID}}", clientsecret: "{{.ClientSecret}}"}
`)
	return sc
}

// kebab makes the name of a method fit for a namespace.
func kebab(name string) string {
	var b strings.Builder
	for i, r := range name {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('-')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()[:min(b.Len(), 50)]
}

// end says what became of the scenario's pods if it failed, and removes the namespace.
func (s *Scenario) end() {
	if s.Failed() {
		s.Logf("what is in namespace %s:\n%s", s.Namespace, s.describe())
		if s.keep {
			return
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), Bound)
	defer cancel()
	if err := s.api.deleteNamespace(ctx, s.Namespace); err != nil {
		s.Errorf("removing namespace %s: %v", s.Namespace, err)
		return
	}
	// Until the pods are gone their volumes are being removed, and that may fail.
	if err := s.pods.await(ctx, func() error {
		for _, p := range s.pods.list() {
			if p.Namespace == s.Namespace {
				return fmt.Errorf("pod %s is still there", p.Name)
			}
		}
		return nil
	}); err != nil {
		s.Errorf("removing namespace %s: %v\n%s", s.Namespace, err, s.describe())
	}
}

// describe tells the states of the namespace's pods, all Events, and what the system's pods logged of them.
func (s *Scenario) describe() string {
	var b strings.Builder
	for _, p := range s.pods.list() {
		if p.Namespace == s.Namespace {
			fmt.Fprintf(&b, "  pod %s on %s: %s\n", p.Name, p.Spec.NodeName, state(p))
		}
	}
	events := map[string]bool{}
	for _, e := range s.events.list() {
		if e.Namespace == s.Namespace {
			events[fmt.Sprintf("  %s %s/%s: %s: %s\n", e.Type, strings.ToLower(e.InvolvedObject.Kind), e.InvolvedObject.Name, e.Reason, e.Message)] = true
		}
	}
	for _, line := range slices.Sorted(maps.Keys(events)) {
		b.WriteString(line)
	}
	for _, line := range s.journal.mentions(s.Namespace) {
		b.WriteString("  " + strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

// Expand fills the fields of the scenario into a text.
func (s *Scenario) Expand(text string) string {
	s.Helper()
	t, err := template.New("").Option("missingkey=error").Parse(text)
	if err != nil {
		s.Fatalf("reading a template: %v", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, s); err != nil {
		s.Fatalf("filling a template: %v", err)
	}
	return b.String()
}

// Apply applies a manifest, with any number of documents, as kubectl apply --server-side does. Objects that name no namespace go into the scenario's.
func (s *Scenario) Apply(manifest string) {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	if err := s.api.apply(ctx, s.Namespace, s.Expand(manifest)); err != nil {
		s.Fatal(err)
	}
}

// Get reads an object, of the scenario's namespace where the kind has one, into a typed value; kind is such as "v1/Pod". It returns false if there is none.
func (s *Scenario) Get(kind, name string, into any) bool {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	err := s.api.get(ctx, kind, s.Namespace, name, into)
	if err != nil && !apierrors.IsNotFound(err) {
		s.Fatalf("reading %s %s: %v", kind, name, err)
	}
	return err == nil
}

// Annotate sets an annotation of an object of the scenario's namespace.
func (s *Scenario) Annotate(kind, name, annotation, value string) {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	if err := s.api.patch(ctx, kind, s.Namespace, name, map[string]any{"metadata": map[string]any{"annotations": map[string]string{annotation: value}}}); err != nil {
		s.Fatal(err)
	}
}

// Delete removes an object, of the scenario's namespace where the kind has one.
func (s *Scenario) Delete(kind, name string) {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	if err := s.api.delete(ctx, kind, s.Namespace, name); err != nil {
		s.Fatalf("deleting %s %s: %v", kind, name, err)
	}
}

// Class makes a SecretProviderClass of objects of the vault, each in YAML's flow form, as in `{objectName: a, objectType: secret}`. It names neither
// client nor identity: the pod's Secret does.
func (s *Scenario) Class(name string, objects ...string) {
	s.Helper()
	var b strings.Builder
	for _, o := range objects {
		b.WriteString("        - |\n          " + o + "\n")
	}
	s.Apply(`
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: ` + name + `}
spec:
  provider: azure
  parameters:
    keyvaultName: "{{.Vault}}"
    tenantID: "{{.Tenant}}"
    objects: |
      array:
` + b.String())
}

// bound is for one step.
func (s *Scenario) bound() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.Context(), Bound)
}

// Await asks several times a second until ask returns nil, for things that nothing tells of.
func (s *Scenario) Await(what string, ask func() error) {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			s.Fatalf("waiting for %s: %v; the last answer was: %v", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// AwaitEvent waits for an Event on a pod of the scenario whose reason is given and whose message contains all the texts, and returns the message.
func (s *Scenario) AwaitEvent(podName, reason string, texts ...string) string {
	s.Helper()
	ctx, cancel := s.bound()
	defer cancel()
	var found string
	err := s.events.await(ctx, func() error {
		for _, e := range s.events.list() {
			if e.Namespace != s.Namespace || e.InvolvedObject.Name != podName || e.Reason != reason {
				continue
			}
			if missing := slices.IndexFunc(texts, func(text string) bool { return !strings.Contains(e.Message, text) }); missing < 0 {
				found = e.Message
				return nil
			}
		}
		return errors.New("there is no such Event")
	})
	if err != nil {
		s.Fatalf("waiting for an Event %s on pod %s with %q: %v; there are:\n%s", reason, podName, texts, err, s.describe())
	}
	return found
}

// Figure prints a measured value at the end of the run.
func (s *Scenario) Figure(format string, args ...any) {
	s.Helper()
	s.Logf("figure: "+format, args...)
}
