package daemon

import (
	"strings"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/provider/plugin"
)

// Who names a provider that this program could have in itself is told so; others are not.
func TestMissingProviderThatCouldBeBuiltIn(t *testing.T) {
	d := &daemon{folders: plugin.NewFolders(plugin.FoldersConfig{Folders: []string{t.TempDir()}})}
	defer d.folders.Close()
	for name, want := range map[string]string{"azure": "--builtin-providers=azure", "Azure": "(write azure in spec.provider", "aws": ""} {
		_, err := d.provider(name)
		if err == nil || provider.KindOf(err) == provider.Internal || !strings.Contains(err.Error(), `provider not found: provider "`+name+`"`) ||
			!strings.Contains(err.Error(), want) || want == "" && strings.Contains(err.Error(), "azure") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
