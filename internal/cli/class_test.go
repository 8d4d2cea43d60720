package cli

import (
	"bytes"
	"strings"
	"testing"
)

const manifest = `apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: app}
spec: {provider: azure, parameters: {keyvaultName: v}}
`

func TestManifestIsBounded(t *testing.T) {
	in := strings.NewReader(manifest + strings.Repeat("# comment\n", maxManifest/10))
	if _, err := readClass("-", "", in); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
}

func TestNamespaceIsDefaultIfTheClassHasNone(t *testing.T) {
	c, err := readClass("-", "", strings.NewReader(manifest))
	if err != nil || c.Namespace != "default" || c.Name != "app" || c.Spec.Parameters["keyvaultName"] != "v" {
		t.Errorf("got %+v, %v", c, err)
	}
}

// Whatever a manifest holds, it is a class with a name or an error in one line.
func FuzzReadClass(f *testing.F) {
	for _, seed := range []string{
		manifest, manifest + "---\n" + manifest, "---\n---\n", "{}", "[]", "a: &a [*a]", "kind: 1", "apiVersion: {}",
		`{"apiVersion":"secrets-store.csi.x-k8s.io/v1","kind":"SecretProviderClass","metadata":{"name":"a"},"spec":null}`,
		strings.Replace(manifest, "parameters: {", "parameters: {a: 1, ", 1), "\x00", "%YAML 9\n---\n", "a:\r\n\tb",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := readClass("-", "", bytes.NewReader(data))
		switch {
		case err == nil && (c == nil || c.Name == "" || c.Namespace == ""):
			t.Errorf("got %+v without an error", c)
		case err != nil && strings.ContainsAny(printable(err.Error()), "\n\r\x1b"):
			t.Errorf("error of more than a line: %q", err)
		}
	})
}
