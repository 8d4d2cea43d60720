package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func valid(t *testing.T) []Entry {
	t.Helper()
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []Entry{
		{Path: "/usr/bin/program", Mode: 0o755, Source: source},
		{Path: "/etc/passwd", Mode: 0o644, Content: []byte("root\n")},
		{Path: "/bin", Target: "usr/bin"},
		{Path: "/tmp", Mode: 0o777 | fs.ModeSticky, Folder: true},
	}
}

func TestLayer(t *testing.T) {
	const want = `2 bin 0777 0 > usr/bin
5 etc/ 0755 0
0 etc/passwd 0644 5 "root\n"
5 tmp/ 01777 0
5 usr/ 0755 0
5 usr/bin/ 0755 0
0 usr/bin/program 0755 7 "program"
`
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, zip := range []bool{false, true} {
		t.Run(fmt.Sprintf("gzip=%v", zip), func(t *testing.T) {
			l, err := New(valid(t), Options{Time: at, Gzip: zip})
			if err != nil {
				t.Fatal(err)
			}
			if !zip {
				stored(t, l)
			} else if err := validate.Layer(l); err != nil { // which takes every layer for a compressed one
				t.Error(err)
			}
			r, err := l.Uncompressed()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got := list(t, r, at); got != want {
				t.Errorf("the layer holds\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func stored(t *testing.T, l v1.Layer) {
	t.Helper()
	r, err := l.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, n, err := v1.SHA256(r)
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := l.Digest()
	diffID, _ := l.DiffID()
	if size, _ := l.Size(); got != digest || got != diffID || n != size {
		t.Errorf("the stored layer is %s of %d bytes; it says %s, %s and %d", got, n, digest, diffID, size)
	}
}

func list(t *testing.T, r io.Reader, at time.Time) string {
	t.Helper()
	var b strings.Builder
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(at) || h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s: time %v, owner %d:%d %q", h.Name, h.ModTime, h.Uid, h.Gid, h.Uname)
		}
		fmt.Fprintf(&b, "%c %s %#o %d", h.Typeflag, h.Name, h.Mode, h.Size)
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if h.Linkname != "" {
			fmt.Fprintf(&b, " > %s", h.Linkname)
		}
		if len(content) > 0 {
			fmt.Fprintf(&b, " %q", content)
		}
		b.WriteString("\n")
	}
}

// Neither the order of the entries nor the files' own modes and times reach the digest.
func TestDigestDependsOnContentOnly(t *testing.T) {
	digest := func(entries []Entry) string {
		l, err := New(entries, Options{Gzip: true})
		if err != nil {
			t.Fatal(err)
		}
		d, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	first, second := valid(t), valid(t)
	second[0], second[2] = second[2], second[0]
	source := second[2].Source
	if err := os.Chtimes(source, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(source, 0o777); err != nil {
		t.Fatal(err)
	}
	if a, b := digest(first), digest(second); a != b {
		t.Errorf("the same content gives %s and %s", a, b)
	}
	second[1].Content = []byte("other")
	if a, b := digest(first), digest(second); a == b {
		t.Error("other content gives the same digest")
	}
}

func TestRefusedEntries(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func([]Entry) []Entry
		want   string
	}{
		{"relative", func(e []Entry) []Entry { e[1].Path = "etc/passwd"; return e }, `"etc/passwd" into the image: the path must be absolute`},
		{"above", func(e []Entry) []Entry { e[1].Path = "/etc/../passwd"; return e }, "without '.', '..'"},
		{"root", func(e []Entry) []Entry { e[3].Path = "/"; return e }, "must be absolute"},
		{"nothing", func(e []Entry) []Entry { e[1].Content = nil; return e }, "only one of them"},
		{"two kinds", func(e []Entry) []Entry { e[1].Target = "x"; return e }, "only one of them"},
		{"twice", func(e []Entry) []Entry { return append(e, e[1]) }, "given twice"},
		{"below a link", func(e []Entry) []Entry { e[1].Path = "/bin/sh"; return e }, `"/bin" is no folder`},
		{"absent source", func(e []Entry) []Entry { e[0].Source += "x"; return e }, "no such file"},
		{"folder as source", func(e []Entry) []Entry { e[0].Source = filepath.Dir(e[0].Source); return e }, "is not a regular file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(tc.change(valid(t)), Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}
