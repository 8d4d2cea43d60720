package volume_test

import (
	"path/filepath"
	"strings"
	"testing"

	"keymount/internal/provider"
	"keymount/internal/volume"
)

// twenty is a content of 20 files of 2 KiB.
func twenty() []provider.File {
	var files []provider.File
	for i := range 20 {
		files = append(files, file("secret"+itoa(i), strings.Repeat("x", 2048)))
	}
	return files
}

func BenchmarkWrite(b *testing.B) {
	write := func(b *testing.B, root string, files []provider.File) {
		if _, err := volume.Write(root, files, volume.Options{}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("first", func(b *testing.B) {
		parent := b.TempDir()
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			root := filepath.Join(parent, itoa(i))
			must(b, volume.Folder{}.Mount(root))
			b.StartTimer()
			write(b, root, twenty())
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		root := folderVolume(b)
		write(b, root, twenty())
		b.ReportAllocs()
		for b.Loop() {
			write(b, root, twenty())
		}
	})
	b.Run("one of 20 changed", func(b *testing.B) {
		root := folderVolume(b)
		write(b, root, twenty())
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			files := twenty()
			files[3].Contents = provider.Contents(itoa(i))
			write(b, root, files)
		}
	})
}

func BenchmarkRootMountUnmount(b *testing.B) {
	root := target(b)
	v := volume.Tmpfs{}
	b.Run("empty", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			must(b, v.Mount(root))
			must(b, v.Unmount(root))
		}
	})
	b.Run("with 20 files", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			must(b, v.Mount(root))
			if _, err := volume.Write(root, twenty(), volume.Options{}); err != nil {
				b.Fatal(err)
			}
			must(b, v.Unmount(root))
		}
	})
}

func BenchmarkRootInspect(b *testing.B) {
	root := target(b)
	v := volume.Tmpfs{}
	must(b, v.Mount(root))
	mustWrite(b, root, twenty())
	b.ReportAllocs()
	for b.Loop() {
		if status, err := v.Inspect(root); err != nil || status.Generation == "" {
			b.Fatal(status, err)
		}
	}
	must(b, v.Unmount(root))
}
