//go:build linux

package volume_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/volume"
)

// numbered is a content in which every file holds the number, so that a mixture shows.
func numbered(n int) []provider.File {
	text := fmt.Sprintf("%06d", n)
	files := []provider.File{file("a", text), file("n/b", text), file("n/m/c", text)}
	if n%2 == 0 {
		return append(files, file("even", text), file("x/y", text))
	}
	return append(files, file("odd", text), file("x", text)) // x is a folder and a file in turns
}

// Readers that resolve ..data once see one generation, complete; readers of a top-level name never miss a name that
// all generations have; Read gives one generation.
func TestReadersSeeWholeGenerations(t *testing.T) {
	t.Attr("conformance", "12.5/whole-generations")
	root := folderVolume(t)
	mustWrite(t, root, numbered(0))
	var wg sync.WaitGroup
	var done atomic.Bool
	const readers = 4
	started := make(chan struct{}, readers)
	reader := func(read func() error) {
		wg.Go(func() {
			for i := 0; !done.Load(); i++ {
				if err := read(); err != nil {
					t.Error(err)
					break
				}
				if i == 0 {
					started <- struct{}{}
				}
			}
		})
	}
	reader(func() error { return readOnce(root) })
	reader(func() error {
		// A top-level name goes through ..data, which is there at every moment. (That the generation behind it falls away between
		// two steps of one path look-up is the kernel's business: it resolves links under its own protection.)
		_, err := os.Lstat(filepath.Join(root, "a"))
		if err == nil {
			_, err = os.Readlink(filepath.Join(root, "..data"))
		}
		return err
	})
	reader(func() error {
		g, err := volume.Read(root)
		if err != nil {
			return err
		}
		return oneNumber(g)
	})
	reader(func() error {
		status, err := volume.Folder{}.Inspect(root)
		if err == nil && status.Generation == "" {
			err = errors.New("inspecting: no generation")
		}
		return err
	})
	for range readers {
		<-started
	}
	for n := 1; n <= 150; n++ {
		mustWrite(t, root, numbered(n))
	}
	done.Store(true)
	wg.Wait()
	assertHolds(t, root, numbered(150))
}

// readOnce resolves ..data and reads everything there. If the generation fell away meanwhile it was not the current one any more, and
// the reader resolves again; a missing file in a generation that is still current is a failure.
func readOnce(root string) error {
	for {
		name, err := os.Readlink(filepath.Join(root, "..data"))
		if err != nil {
			return err
		}
		err = readWhole(filepath.Join(root, name))
		if err == nil {
			return nil
		}
		if after, _ := os.Readlink(filepath.Join(root, "..data")); after == name {
			return err
		}
	}
}

func readWhole(data string) error {
	number, err := os.ReadFile(filepath.Join(data, "a"))
	if err != nil {
		return err
	}
	var n int
	if _, err := fmt.Sscanf(string(number), "%06d", &n); err != nil {
		return fmt.Errorf("torn file %q: %w", number, err)
	}
	for _, f := range numbered(n) {
		got, err := os.ReadFile(filepath.Join(data, f.Path))
		if err != nil {
			return err
		}
		if string(got) != string(f.Contents) {
			return fmt.Errorf("%s holds %q in generation %q", f.Path, got, number)
		}
	}
	return nil
}

func oneNumber(g *volume.Generation) error {
	var n int
	if _, err := fmt.Sscanf(string(g.Files[0].Contents), "%06d", &n); err != nil {
		return fmt.Errorf("torn file: %w", err)
	}
	want := numbered(n)
	if len(g.Files) != len(want) {
		return fmt.Errorf("Read gives %d files of generation %d, want %d", len(g.Files), n, len(want))
	}
	for _, f := range g.Files {
		if string(f.Contents) != string(want[0].Contents) {
			return fmt.Errorf("Read gives a mixture: %q in generation %d", []byte(f.Contents), n)
		}
	}
	return nil
}
