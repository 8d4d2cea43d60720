package layer

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A tarLayer produces its bytes anew whenever it is read, so that a layer of large programs takes no memory. (The library's
// own layers are always compressed, which a test image pays for in seconds.)
type tarLayer struct {
	entries        []Entry
	opt            Options
	digest, diffID v1.Hash
	size           int64
}

func (l *tarLayer) Digest() (v1.Hash, error) { return l.digest, nil }
func (l *tarLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }
func (l *tarLayer) Size() (int64, error)     { return l.size, nil }

func (l *tarLayer) MediaType() (types.MediaType, error) {
	if l.opt.Gzip {
		return types.OCILayer, nil
	}
	return types.OCIUncompressedLayer, nil
}

func (l *tarLayer) Uncompressed() (io.ReadCloser, error) { return l.stream(l.write), nil }

func (l *tarLayer) Compressed() (io.ReadCloser, error) { return l.stream(l.writeStored), nil }

func (l *tarLayer) stream(write func(io.Writer) error) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }()
	return r
}

// measure reads the layer once for the digests of both its forms.
func (l *tarLayer) measure() error {
	plain, stored := sha256.New(), &counter{sum: sha256.New()}
	if err := l.store(stored, plain); err != nil {
		return fmt.Errorf("making a layer: %w", err)
	}
	l.diffID, l.digest, l.size = toHash(plain), toHash(stored.sum), stored.n
	return nil
}

func (l *tarLayer) writeStored(w io.Writer) error { return l.store(w, io.Discard) }

// store writes the layer as it is stored to w, and as it is uncompressed to plain.
func (l *tarLayer) store(w, plain io.Writer) error {
	if !l.opt.Gzip {
		return l.write(io.MultiWriter(w, plain))
	}
	zip, err := gzip.NewWriterLevel(w, gzip.DefaultCompression)
	if err != nil {
		return err
	}
	if err := l.write(io.MultiWriter(zip, plain)); err != nil {
		return err
	}
	return zip.Close()
}

func (l *tarLayer) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, e := range l.entries {
		if err := e.write(tw, l.opt.Time); err != nil {
			return fmt.Errorf("putting %q into the image: %w", e.Path, err)
		}
	}
	return tw.Close()
}

func (e Entry) write(tw *tar.Writer, at time.Time) error {
	h := &tar.Header{Name: strings.TrimPrefix(e.Path, "/"), Mode: int64(e.Mode.Perm()), ModTime: at, Typeflag: tar.TypeReg}
	if e.Mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	switch {
	case e.Folder:
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	case e.Target != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.Target, 0o777
	case e.Source != "":
		return copyFile(tw, h, e.Source)
	default:
		h.Size = int64(len(e.Content))
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := tw.Write(e.Content)
	return err
}

func copyFile(tw *tar.Writer, h *tar.Header, source string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", source)
	}
	h.Size = info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

// A counter hashes and counts what is written.
type counter struct {
	sum hash.Hash
	n   int64
}

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return c.sum.Write(b)
}

func toHash(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}
