//go:build unix

package volume_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/volume"
	"keymount/internal/volume/volumetest"
)

func texts(files map[string]provider.Contents) map[string]string {
	out := map[string]string{}
	for path, content := range files {
		out[path] = string(content)
	}
	return out
}

// Some files of a generation, and nothing but regular files of it.
func TestReadFiles(t *testing.T) {
	root := t.TempDir()
	files := []provider.File{{Path: "a", Mode: 0o600, Contents: provider.Contents("1")}, {Path: "dir/b", Mode: 0o400, Contents: provider.Contents("two")},
		{Path: "empty", Mode: 0o600}}
	if _, err := volume.Write(root, files, volume.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "foreign"), []byte("not of the generation"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := []string{"a", "a", "dir/b", "empty", "dir", "foreign", "absent", "../" + filepath.Base(root) + "/foreign", "..data/a", "/etc/passwd", "", ".", "dir/../a", "a\x00"}
	got, err := volume.Folder{}.Read(root, ask, 4)
	if want := map[string]string{"a": "1", "dir/b": "two", "empty": ""}; err != nil || !maps.Equal(texts(got), want) {
		t.Errorf("got %v, %v, want %v", texts(got), err, want)
	}
	if got, err := (volume.Folder{}).Read(root, ask, 3); err == nil || !strings.Contains(err.Error(), "more than 3 bytes together") {
		t.Errorf("more than the limit is read: %v, %v", texts(got), err)
	}
	if _, err := (volume.Folder{}).Read(filepath.Join(root, "absent"), ask, 4); !errors.Is(err, volume.ErrNotMounted) {
		t.Errorf("got %v", err)
	}
}

// A volume that its provider writes itself is hostile: links are followed inside, and nothing else than a file is opened.
func TestReadFilesOfAProvidersOwn(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "volume")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(root, "real"), 0o700))
	must(os.WriteFile(filepath.Join(root, "real/a"), []byte("inside"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "outside"), []byte("outside"), 0o600))
	must(os.Symlink("real/a", filepath.Join(root, "link")))
	must(os.Symlink("../outside", filepath.Join(root, "escape")))
	must(os.Symlink(filepath.Join(dir, "outside"), filepath.Join(root, "absolute")))
	must(os.Symlink("/proc/self/root/etc/passwd", filepath.Join(root, "magic")))
	must(os.Symlink("loop", filepath.Join(root, "loop")))
	must(os.Symlink("absent", filepath.Join(root, "dangling")))
	must(syscall.Mkfifo(filepath.Join(root, "pipe"), 0o600))
	got, err := volume.Folder{}.Read(root, []string{"real/a", "link", "escape", "absolute", "magic", "loop", "dangling", "pipe", "real"}, 1<<20)
	if want := map[string]string{"real/a": "inside", "link": "inside"}; err != nil || !maps.Equal(texts(got), want) {
		t.Errorf("got %v, %v, want %v", texts(got), err, want)
	}
}

// While generations are swapped, what is read is of one of them.
func TestReadFilesOfOneGeneration(t *testing.T) {
	root := t.TempDir()
	write := func(text string) {
		files := []provider.File{{Path: "a", Mode: 0o600, Contents: provider.Contents(text)}, {Path: "b", Mode: 0o600, Contents: provider.Contents(text)}}
		if _, err := volume.Write(root, files, volume.Options{}); err != nil {
			t.Error(err)
		}
	}
	write("0")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				write(strings.Repeat("x", i%50))
			}
		}
	})
	for range 300 {
		got, err := volume.Folder{}.Read(root, []string{"a", "b"}, 1000)
		if err != nil || len(got) != 2 || string(got["a"]) != string(got["b"]) {
			t.Fatalf("got %v, %v", texts(got), err)
		}
	}
	close(stop)
	wg.Wait()
}

// Where nothing is mounted there is nothing to read: files in the folder below are not a volume's.
func TestRootTmpfsRead(t *testing.T) {
	volumetest.NeedRoot(t)
	target := filepath.Join(t.TempDir(), "mount")
	if err := os.MkdirAll(target, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(target, "a"), []byte("below"), 0o600); err != nil {
		t.Fatal(err)
	}
	store := volume.Tmpfs{}
	if got, err := store.Read(target, []string{"a"}, 100); !errors.Is(err, volume.ErrNotMounted) {
		t.Errorf("got %v, %v", texts(got), err)
	}
	if err := store.Mount(target); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Unmount(target) })
	if _, err := volume.Write(target, []provider.File{{Path: "a", Mode: 0o600, Contents: provider.Contents("mounted")}}, volume.Options{}); err != nil {
		t.Fatal(err)
	}
	if got, err := store.Read(target, []string{"a"}, 100); err != nil || string(got["a"]) != "mounted" {
		t.Errorf("got %v, %v", texts(got), err)
	}
	// Files of another file system below are not the volume's.
	if err := os.Mkdir(filepath.Join(target, "below"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := store.Mount(filepath.Join(target, "below")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Unmount(filepath.Join(target, "below")) })
	if err := os.Remove(filepath.Join(target, "..data")); err != nil { // as a provider's own
		t.Fatal(err)
	}
	for _, path := range []string{"own", "below/foreign"} {
		if err := os.WriteFile(filepath.Join(target, path), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := store.Read(target, []string{"own", "below/foreign"}, 100); err != nil || len(got) != 1 || string(got["own"]) != "x" {
		t.Errorf("got %v, %v", texts(got), err)
	}
	if _, err := (volume.Tmpfs{}).Read(filepath.Join(target, "absent"), nil, 1); !errors.Is(err, volume.ErrNotMounted) {
		t.Errorf("got %v", err)
	}
}
