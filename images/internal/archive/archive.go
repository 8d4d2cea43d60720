// Package archive writes an OCI image layout into one tar file, the form that `ctr images import`, `skopeo` and `crane`
// read. The same index gives the same bytes. It knows nothing of what the images hold. Its functions may be called
// concurrently for different files.
package archive

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// Annotations by which a reader of the layout names its images: containerd reads the first, others the second.
const (
	ImageName = "io.containerd.image.name"
	RefName   = "org.opencontainers.image.ref.name"
)

// Write puts the layout whose index.json is index into file, whole or not at all. A file of that name is replaced.
func Write(file string, index v1.ImageIndex) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing the image layout %s: %w", file, err)
		}
	}()
	// Beside the file: the rename must stay on one file system, and /tmp may be small.
	work, err := os.MkdirTemp(filepath.Dir(file), ".layout-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if _, err := layout.Write(filepath.Join(work, "layout"), index); err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(work, "tar"))
	if err != nil {
		return err
	}
	defer out.Close()
	if err := pack(out, filepath.Join(work, "layout")); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Rename(out.Name(), file)
}

// pack writes the folder's files with nothing of this machine's in their headers; the walk is in lexical order.
func pack(w io.Writer, dir string) error {
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: filepath.ToSlash(name), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Mode: 0o644}
		if d.IsDir() {
			h.Typeflag, h.Mode, h.Name = tar.TypeDir, 0o755, h.Name+"/"
			return tw.WriteHeader(h)
		}
		return add(tw, h, path)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func add(tw *tar.Writer, h *tar.Header, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.Size = info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}
