package volume_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/volume"
	"keymount/internal/volume/volumetest"
)

// Whoever owns a folder can enter it whatever its mode, and can put another in its place: a folder that waits in /tmp under the
// name that somebody will use gets no secrets.
func TestRootFolderOfAnotherUserIsRefused(t *testing.T) {
	volumetest.NeedRoot(t)
	root := filepath.Join(t.TempDir(), "volume")
	must(t, os.Mkdir(root, 0o777))
	must(t, os.Chown(root, 12345, 12345))
	err := volume.Folder{}.Mount(root)
	if provider.KindOf(err) != provider.Invalid || err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("kind %v: %v", provider.KindOf(err), err)
	}
}

// A provider can put as many files into the generation as it likes. What no write of ours made is refused, not read.
func TestOversizedGenerationIsRefused(t *testing.T) {
	for name, plant := range map[string]func(t *testing.T, generation string){
		"in number": func(t *testing.T, generation string) {
			must(t, os.Mkdir(generation+"/many", 0o700))
			for i := range volume.MaxEntries {
				must(t, os.Link(generation+"/"+base()[0].Path, fmt.Sprintf("%s/many/%d", generation, i)))
			}
		},
		"in depth": func(t *testing.T, generation string) {
			must(t, os.MkdirAll(generation+strings.Repeat("/d", volume.MaxDepth+1), 0o700))
		},
		"in bytes": func(t *testing.T, generation string) {
			must(t, os.WriteFile(generation+"/sparse", nil, 0o600))
			must(t, os.Truncate(generation+"/sparse", volume.MaxBytes+1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			mustWrite(t, root, base())
			generation, err := filepath.EvalSymlinks(root + "/..data")
			must(t, err)
			plant(t, generation)
			if g, err := volume.Read(root); err == nil {
				t.Errorf("%d files were read", len(g.Files))
			}
			mustWrite(t, root, base()) // and the next write puts it right
			assertHolds(t, root, base())
		})
	}
}
