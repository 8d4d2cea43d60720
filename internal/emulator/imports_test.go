package emulator_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The emulator checks the product, so it must not be made of it.
func TestImports(t *testing.T) {
	allowed := []string{
		"software.sslmate.com/src/go-pkcs12", // PFX files as the service writes them
		"go.yaml.in/yaml/v3",                 // seed files, with the line of a mistake
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{join .Imports "\n"}}`, "keymount/internal/emulator").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, path := range strings.Fields(string(out)) {
		first, _, _ := strings.Cut(path, "/")
		if !strings.Contains(first, ".") && first != "keymount" {
			continue // the standard library
		}
		seen++
		if !slices.Contains(allowed, path) {
			t.Errorf("internal/emulator imports %s, which is not on the list", path)
		}
	}
	if seen != len(allowed) {
		t.Errorf("%d packages outside of the standard library are imported, want the %d of the list", seen, len(allowed))
	}
}
