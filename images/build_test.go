package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/spdx/tools-golang/spdx"

	spdxjson "github.com/spdx/tools-golang/json"

	"keymount/images/internal/archive"
	"keymount/images/internal/product"
	"keymount/images/internal/sbom"
)

// TestImages makes the images of the last commit twice, as users do, and reads them back.
func TestImages(t *testing.T) {
	// Compiled without the race detector, which would make the compression take minutes.
	images := filepath.Join(t.TempDir(), "images")
	plain := append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false")
	command(t, plain, "go", "build", "-o", images, ".")

	first := t.TempDir()
	tree := clone(t, filepath.Join(first, "tree"))
	out := filepath.Join(first, "out")
	list := command(t, os.Environ(), images, "build", "--source", tree, "--out", out, "--platform", "linux/"+runtime.GOARCH)

	t.Run("digests", func(t *testing.T) {
		if got := read(t, filepath.Join(out, "digests.txt")); got != list || strings.Count(list, "\n") != 2*len(product.Images()) {
			t.Errorf("digests.txt holds\n%s\nand the program printed\n%s", got, list)
		}
	})
	t.Run("reproducible", func(t *testing.T) {
		second := filepath.Join(t.TempDir(), "another folder", "of another name")
		tree := clone(t, filepath.Join(second, "work"))
		// A builder with other habits: flags, instructions, time zone, language, permissions of new files.
		env := append(os.Environ(), "GOFLAGS=-tags=netgo -ldflags=-X=main.version=other", "GOAMD64=v3", "TZ=Pacific/Chatham", "LANG=tr_TR.UTF-8")
		again := filepath.Join(second, "out")
		command(t, env, "/bin/sh", "-c", `umask 077; cd / && exec "$0" "$@"`, images, "build", "--source", filepath.Join(tree, "cmd"),
			"--out", again, "--platform", "linux/"+runtime.GOARCH)
		sameFiles(t, out, again)
	})
	for _, i := range product.Images() {
		t.Run(i.Name, func(t *testing.T) {
			checkImage(t, i, tree, filepath.Join(out, i.Name+".tar"), filepath.Join(out, i.Name+".linux-"+runtime.GOARCH+".spdx.json"), list)
		})
	}
	t.Run("arm64", func(t *testing.T) {
		out := t.TempDir()
		command(t, os.Environ(), images, "build", "--source", tree, "--out", out, "--platform", "linux/arm64", "--image", "keyvault-emulator")
		img, _ := open(t, filepath.Join(out, "keyvault-emulator.tar"), "linux/arm64")
		program := parseELF(t, files(t, img)["keyvault-emulator"].content)
		if program.Machine != elf.EM_AARCH64 {
			t.Errorf("the program is for %v", program.Machine)
		}
	})
}

func command(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env, cmd.Stderr = env, &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, &stderr)
	}
	return string(out)
}

// clone makes a work tree of the last commit: what is not committed is no part of what must be reproducible.
func clone(t *testing.T, dir string) string {
	t.Helper()
	command(t, os.Environ(), "git", "clone", "--quiet", "--shared", "..", dir)
	return dir
}

func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	names := func(dir string) (all []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, e.Name())
		}
		return all
	}
	if x, y := names(a), names(b); !slices.Equal(x, y) || len(x) != 1+2*len(product.Images()) {
		t.Fatalf("one build wrote %q, the other %q", x, y)
	}
	for _, name := range names(a) {
		if read(t, filepath.Join(a, name)) != read(t, filepath.Join(b, name)) {
			t.Errorf("%s differs between two builds of one commit", name)
		}
	}
}

// open unpacks the layout, validates what its name stands for, and returns the image of the platform and the layout's path.
func open(t *testing.T, file, platform string) (v1.Image, layout.Path) {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(name, 0o755)
		} else {
			var b []byte
			if b, err = io.ReadAll(tr); err == nil {
				err = os.WriteFile(name, b, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	path, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	top := topIndex(t, path)
	index, err := must(path.ImageIndex()).ImageIndex(top.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	for _, d := range must(index.IndexManifest()).Manifests {
		if d.Platform.String() == platform && d.ArtifactType == "" {
			return must(index.Image(d.Digest)), path
		}
	}
	t.Fatalf("%s holds nothing for %s", file, platform)
	return nil, ""
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func topIndex(t *testing.T, path layout.Path) *v1.IndexManifest {
	t.Helper()
	return must(must(path.ImageIndex()).IndexManifest())
}

type file struct {
	mode    int64
	content []byte
}

func files(t *testing.T, img v1.Image) map[string]file {
	t.Helper()
	layers := must(img.Layers())
	if len(layers) != 1 {
		t.Fatalf("the image has %d layers, want 1", len(layers))
	}
	r := must(layers[0].Uncompressed())
	defer r.Close()
	all := map[string]file{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		all[must(h, err).Name] = file{h.Mode, must(io.ReadAll(tr))}
	}
}

func parseELF(t *testing.T, program []byte) *elf.File {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Error("the program is not static: it asks for a loader, which the image does not have")
	}
	return f
}

func checkImage(t *testing.T, i product.Image, tree, tarball, spdxFile, digests string) {
	img, path := open(t, tarball, "linux/"+runtime.GOARCH)
	name := "ghcr.io/keymount/" + i.Name + ":" + defaultVersion
	top := topIndex(t, path)
	if got := top.Manifests[0].Annotations; got[archive.ImageName] != name || got[archive.RefName] != defaultVersion {
		t.Errorf("the layout names the image %v", got)
	}
	for _, line := range []string{
		top.Manifests[0].Digest.String() + " " + name + "\n",
		must(img.Digest()).String() + " " + name + " linux/" + runtime.GOARCH + "\n",
	} {
		if !strings.Contains(digests, line) {
			t.Errorf("the digests lack %q", line)
		}
	}
	revision := strings.TrimSpace(command(t, os.Environ(), "git", "-C", tree, "rev-parse", "HEAD"))
	checkConfig(t, i, img, revision)
	content := files(t, img)
	checkFiles(t, i, content)
	program := filepath.Join(t.TempDir(), i.Name)
	if err := os.WriteFile(program, content[i.Name].content, 0o755); err != nil {
		t.Fatal(err)
	}
	parseELF(t, content[i.Name].content)
	if i.Name == "keymount-driver" {
		if got := command(t, nil, program, "--version"); !strings.Contains(got, defaultVersion) || !strings.Contains(got, revision) {
			t.Errorf("the program says %q of itself, want version %s of %s", got, defaultVersion, revision)
		}
	}
	checkBill(t, img, path, program, spdxFile)
}

func checkConfig(t *testing.T, i product.Image, img v1.Image, revision string) {
	t.Helper()
	cfg := must(img.ConfigFile())
	if cfg.OS != "linux" || cfg.Architecture != runtime.GOARCH || cfg.Config.User != i.User ||
		!slices.Equal(cfg.Config.Entrypoint, []string{"/" + i.Name}) || len(cfg.Config.Cmd) > 0 {
		t.Errorf("the configuration is %+v", cfg)
	}
	created := cfg.Created.UTC().Format("2006-01-02T15:04:05Z")
	for _, labels := range []map[string]string{cfg.Config.Labels, must(img.Manifest()).Annotations} {
		for key, want := range map[string]string{"title": i.Title, "version": defaultVersion, "revision": revision, "created": created, "licenses": "Apache-2.0"} {
			if got := labels["org.opencontainers.image."+key]; got != want {
				t.Errorf("the label %s is %q, want %q", key, got, want)
			}
		}
	}
}

func checkFiles(t *testing.T, i product.Image, content map[string]file) {
	t.Helper()
	want := map[string]int64{i.Name: 0o755, "etc/": 0o755, "etc/ssl/": 0o755, "etc/ssl/certs/": 0o755,
		"etc/ssl/certs/ca-certificates.crt": 0o644, "etc/passwd": 0o644, "etc/group": 0o644}
	if i.Scratch {
		want["tmp/"] = 0o1777
	}
	for name, f := range content {
		if mode, ok := want[name]; !ok || mode != f.mode {
			t.Errorf("the image holds %s with mode %#o", name, f.mode)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("the image lacks %s", name)
	}
	// Key Vault and Entra ID are reached by these.
	pool := x509.NewCertPool()
	authorities := content["etc/ssl/certs/ca-certificates.crt"].content
	if !pool.AppendCertsFromPEM(authorities) || bytes.Count(authorities, []byte("BEGIN CERTIFICATE")) < 100 {
		t.Errorf("the bundle of authorities cannot be read, or is too small: %d bytes", len(authorities))
	}
	for _, name := range []string{"DigiCert Global Root G2", "Microsoft RSA Root Certificate Authority 2017"} {
		if !bytes.Contains(authorities, []byte("CN="+name)) {
			t.Errorf("the bundle of authorities lacks %s", name)
		}
	}
}

// checkBill compares the bill of material with what go says of the program, and finds it as a referrer of the image.
func checkBill(t *testing.T, img v1.Image, path layout.Path, program, spdxFile string) {
	t.Helper()
	written := read(t, spdxFile)
	doc, err := spdxjson.Read(strings.NewReader(written))
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]*spdx.Package{}
	for _, p := range doc.Packages {
		has[p.PackageName] = p
	}
	modules := 0
	for line := range strings.Lines(command(t, os.Environ(), "go", "version", "-m", program)) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == "dep" {
			modules++
			if p := has[f[1]]; p == nil || p.PackageVersion != f[2] || !strings.Contains(p.PackageComment, f[3]) || len(p.PackageChecksums) != 1 {
				t.Errorf("the bill of material says %+v of %s %s", p, f[1], f[2])
			}
		}
	}
	// The image, the program, Go and the authorities come on top.
	if modules < 3 || len(doc.Packages) != modules+4 || len(doc.Relationships) != modules+4 {
		t.Errorf("the bill of material has %d packages and %d relationships, the program %d modules", len(doc.Packages), len(doc.Relationships), modules)
	}
	if release := has["stdlib"]; release == nil || "go"+release.PackageVersion != strings.Fields(runtime.Version())[0] {
		t.Errorf("the bill of material names Go as %+v", release)
	}
	artefact := must(must(path.ImageIndex()).Image(topIndex(t, path).Manifests[1].Digest))
	manifest := must(artefact.Manifest())
	if manifest.ArtifactType != sbom.MediaType || manifest.Subject == nil || manifest.Subject.Digest != must(img.Digest()) {
		b, _ := json.Marshal(manifest)
		t.Errorf("the artefact is %s", b)
	}
	blob := must(path.Bytes(manifest.Layers[0].Digest))
	if string(blob) != written {
		t.Error("the artefact is not the bill of material")
	}
}
