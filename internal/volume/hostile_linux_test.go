package volume_test

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/volume"
)

// outside is a folder that looks like the inside of a volume and must never be read or changed through one.
func outside(t *testing.T) (dir string, assertUntouched func()) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "outside")
	must(t, os.MkdirAll(dir+"/n/deep", 0o755))
	for _, f := range base() {
		must(t, os.WriteFile(filepath.Join(dir, f.Path), f.Contents, 0o600))
		must(t, os.Chmod(filepath.Join(dir, f.Path), f.Mode))
	}
	before := stamps(t, dir)
	return dir, func() {
		t.Helper()
		if after := stamps(t, dir); !slices.Equal(before, after) {
			t.Errorf("what is outside of the volume was touched:\n%q\n%q", before, after)
		}
	}
}

func generation(t *testing.T, root string) string {
	t.Helper()
	name, err := os.Readlink(root + "/..data")
	must(t, err)
	return filepath.Join(root, name)
}

// A target in which somebody planted links to the outside, pipes without a writer and sockets. Nothing is followed, nothing blocks
// (a pipe that is opened would hang the test), and the write replaces them.
func TestPlantedEntries(t *testing.T) {
	for name, plant := range map[string]func(t *testing.T, root, out string){
		"..data leads outside": func(t *testing.T, root, out string) { relink(t, out, root+"/..data") },
		"..data leads outside by dots": func(t *testing.T, root, out string) {
			relink(t, "../../../"+filepath.Base(out), root+"/..data")
		},
		"..data is the volume":     func(t *testing.T, root, out string) { relink(t, ".", root+"/..data") },
		"..data is the parent":     func(t *testing.T, root, out string) { relink(t, "..", root+"/..data") },
		"..data is itself":         func(t *testing.T, root, out string) { relink(t, "..data", root+"/..data") },
		"..data is a pipe":         func(t *testing.T, root, out string) { pipe(t, root+"/..data") },
		"..data_tmp is a pipe":     func(t *testing.T, root, out string) { pipe(t, root+"/..data_tmp") },
		"..data_tmp leads outside": func(t *testing.T, root, out string) { relink(t, out, root+"/..data_tmp") },
		"leftover leads outside":   func(t *testing.T, root, out string) { relink(t, out, root+"/..2024_01_01_00_00_00.1") },
		"leftover with links outside": func(t *testing.T, root, out string) {
			must(t, os.MkdirAll(root+"/..2024_01_01_00_00_00.1/n", 0o755))
			relink(t, out, root+"/..2024_01_01_00_00_00.1/n/out")
			relink(t, out+"/a", root+"/..2024_01_01_00_00_00.1/a")
			pipe(t, root+"/..2024_01_01_00_00_00.1/p")
		},
		"generation leads outside": func(t *testing.T, root, out string) { relink(t, out, generation(t, root)) },
		"generation is a pipe":     func(t *testing.T, root, out string) { pipe(t, generation(t, root)) },
		"file leads outside":       func(t *testing.T, root, out string) { relink(t, out+"/a", generation(t, root)+"/a") },
		"file is a pipe":           func(t *testing.T, root, out string) { pipe(t, generation(t, root)+"/a") },
		"folder leads outside":     func(t *testing.T, root, out string) { relink(t, out+"/n", generation(t, root)+"/n") },
		"folder is a pipe":         func(t *testing.T, root, out string) { pipe(t, generation(t, root)+"/n") },
		"top name leads outside":   func(t *testing.T, root, out string) { relink(t, out+"/a", root+"/a") },
		"top folder leads outside": func(t *testing.T, root, out string) { relink(t, out+"/n", root+"/n") },
		"top name is a pipe":       func(t *testing.T, root, out string) { pipe(t, root+"/a") },
	} {
		t.Run(name, func(t *testing.T) {
			root := folderVolume(t)
			mustWrite(t, root, base())
			out, assertUntouched := outside(t)
			plant(t, root, out)
			// Whatever Read makes of it, it is not what lies outside, and it returns.
			if g, err := volume.Read(root); err == nil && filepath.Join(root, g.Name) != generation(t, root) {
				t.Errorf("read %s", g.Name)
			}
			mustWrite(t, root, base())
			assertHolds(t, root, base())
			assertUntouched()
			plant(t, root, out)
			if err := (volume.Folder{}).Unmount(root); err != nil {
				// What is planted at a top-level name is no longer the volume's own, and is named.
				assertKind(t, err, provider.Invalid, "still holds")
			}
			if _, err := os.Stat(root + "/b"); err == nil {
				t.Error("content is left after the unmount")
			}
			assertUntouched()
		})
	}
}

func relink(t *testing.T, target, name string) {
	t.Helper()
	must(t, os.RemoveAll(name))
	must(t, os.Symlink(target, name))
}

func pipe(t *testing.T, name string) {
	t.Helper()
	must(t, os.RemoveAll(name))
	must(t, syscall.Mkfifo(name, 0o666))
}

// Somebody swaps folders and files for links to the outside and for pipes while writes are going on. A write may fail; it never
// touches the outside and it always returns.
func TestPlantingDuringWrites(t *testing.T) {
	root := folderVolume(t)
	out, assertUntouched := outside(t)
	attacker, err := os.OpenRoot(root) // or the attack itself would follow its links
	must(t, err)
	defer attacker.Close()
	var wg sync.WaitGroup
	var done atomic.Bool
	wg.Go(func() {
		for i := 0; !done.Load(); i++ {
			entries, _ := os.ReadDir(root)
			for _, e := range entries {
				for _, victim := range []string{e.Name(), e.Name() + "/n", e.Name() + "/a"} {
					attacker.Rename(victim, victim+"x")
					if i%2 == 0 {
						attacker.Symlink(out, victim)
					} else if syscall.Mkfifo(root+"/pipe", 0o600) == nil {
						attacker.Rename("pipe", victim)
					}
					attacker.RemoveAll(victim + "x")
				}
			}
		}
	})
	two := append(base(), file("n/deep/three", "5"))
	for i := range 100 {
		files := base()
		if i%2 == 0 {
			files = two
		}
		volume.Write(root, files, volume.Options{})
		volume.Read(root)
	}
	done.Store(true)
	wg.Wait()
	assertUntouched()
	mustWrite(t, root, base())
	if why := wrong(root, base()); why != "" {
		t.Error(why)
	}
}
